"""The examples of docs/extending.md, copied to a folder outside the package, go from training to a table."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkl.cli import main
from dkl.manifests.manifest import read
from tests.docs.pages import ROOT, blocks

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "extending.md"
COMMANDS = [line for block in blocks(PAGE) if block.kind == "bash" for line in block.text.splitlines()]
SINGLE = [line for line in COMMANDS if line.startswith("dkl train")][:-1]
TOGETHER = [line for line in COMMANDS if line.startswith("dkl ")][-3:]
TINY = ["trainer.epochs=1", "data.train_size=80", "data.test_size=40", "trainer.threads=1", "trainer.device=cpu"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page shows."""
    folder = tmp_path_factory.mktemp("project")
    for block in blocks(PAGE):
        if block.title.endswith("`:"):
            file = folder / block.title.strip("`:")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    return folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as working directory and on the import path; its modules are forgotten afterwards."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    yield project
    for module in project.glob("*.py"):
        sys.modules.pop(module.stem, None)


def words(line: str, project: Path) -> list[str]:
    """The arguments of a command of the page, with its variables replaced."""
    line = line.replace("$CONFIGS", f"hydra.searchpath=[file://{project}/configs]")
    return shlex.split(line.split("#")[0])[1:]


def test_the_page_has_a_python_file_and_a_yaml_file_for_each(project: Path) -> None:
    assert {path.name for path in project.glob("*.py")} == {"my_loss.py", "my_model.py", "my_data.py", "my_task.py"}
    assert {path.parent.name for path in project.glob("configs/*/*.yaml")} == {"loss", "model", "data", "task"}
    assert len(SINGLE) == 4
    assert [row.name for row in read(project / "experiments/mine.yaml").rows] == ["ikl", "weaker"]


@pytest.mark.parametrize("line", SINGLE, ids=lambda line: line.split()[3])
def test_each_trains_with_shipped_choices(line: str, inside: Path) -> None:
    before = set(inside.glob("results/runs/*/checkpoint.pt"))
    main([*words(line, inside), *TINY])
    assert len(set(inside.glob("results/runs/*/checkpoint.pt")) - before) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("num_classes: 10", "model has no _target_"),
        ("_target_: my_model.Perceptron", "missing 2 required positional arguments: 'num_classes' and 'shape'"),
    ],
)
def test_mistakes_in_a_yaml_are_one_line(
    text: str, says: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inside / "configs/model/wrong.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main(["train", f"hydra.searchpath=[file://{inside}/configs]", "model=wrong", *TINY])
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_all_four_go_from_training_to_a_table(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DKL_RESULTS_DIR", "results/together")
    train, evaluate, tables = (words(line, inside) for line in TOGETHER)
    main([*train, *TINY])
    (run,) = (inside / "results/together/runs").iterdir()
    main(["evaluate", f"run={run}", *evaluate[2:], "attacks=pgd-2", "threads=1"])
    capsys.readouterr()
    main(tables)
    board = capsys.readouterr().out
    assert "Noise" in board
    assert "Perceptron" in board
    assert "bars" in board
