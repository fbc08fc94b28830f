"""The examples of docs/extending.md, copied to a folder outside the package, go from training to a table."""

import csv
import json
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
CHOICES = {
    "loss": "_target_: wrong.Wrong",
    "task": "_target_: wrong.Wrong",
    "data": "{name: wrong, num_classes: 10, shape: [1, 8, 8], eps: '0.1', source: {_target_: wrong.Wrong}}",
}
"""By group: the YAML of a class that is wrong."""
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
    assert {path.name for path in project.glob("*.py")} == {
        *(
            "my_loss.py",
            "my_model.py",
            "my_data.py",
            "my_task.py",
            "my_tested_task.py",
            "my_transforms.py",
            "my_optimizer.py",
            "my_attack.py",
        )
    }
    assert {path.parent.name for path in project.glob("configs/*/*.yaml")} == {
        "loss",
        "model",
        "data",
        "task",
        "attack",
    }
    assert len(SINGLE) == 11
    assert [row.name for row in read(project / "experiments/mine.yaml").rows] == ["ikl", "weaker"]


@pytest.mark.parametrize("line", SINGLE, ids=lambda line: line.split()[3])
def test_each_trains_with_shipped_choices(line: str, inside: Path) -> None:
    before = set(inside.glob("results/runs/*/checkpoint.pt"))
    main([*words(line, inside), *TINY])
    (checkpoint,) = set(inside.glob("results/runs/*/checkpoint.pt")) - before
    terms = ["loss/cosine", "loss/ikl"] if "loss=both" in line else []
    (row,) = map(json.loads, (checkpoint.parent / "metrics.jsonl").read_text().splitlines())
    assert sorted(name for name in row if name.startswith("loss/")) == terms
    assert not terms or ("ikl+cosinegap" in checkpoint.parent.name and sum(row[name] for name in terms) < row["loss"])


def test_an_experiment_in_any_folder_has_a_table(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of its rows names a choice of the folder, which later commands find by the copy in the results."""
    text = (inside / "experiments/mine.yaml").read_text().replace("loss=ikl, loss.wmse_weight=12", "loss=cosine")
    (inside / "own.yaml").write_text(text)
    main(["reproduce", "experiment=own.yaml", "--config-dir", "configs", "budget=smoke", "trainer.threads=1"])
    main(["tables", "results=results/smoke", "smoke=true"])
    assert "IKL-AT, weaker wMSE" in (inside / "results/smoke/tables/own-smoke.md").read_text()
    assert "left out" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["reproduce", "experiment=quickstart.yaml"])
    assert "rename the file" in capsys.readouterr().err


def test_a_tasks_own_metrics_are_columns(inside: Path) -> None:
    main(["reproduce", "experiment=experiments/sure.yaml", "budget=smoke", "trainer.threads=1"])
    main(["tables", "results=results/smoke", "smoke=true"])
    (text,) = [path.read_text() for path in inside.glob("results/smoke/tables/sure-smoke.csv")]
    for row in csv.DictReader(text.splitlines()):
        share, unsure = float(row["sure_mean"]) / 100, float(row["unsure_mean"])
        assert unsure == pytest.approx(1000 * (1 - share), abs=0.06)
    assert "Unsure (per 1000 images)" in (inside / "results/smoke/tables/sure-smoke.md").read_text()


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


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("norm: linf\neps: 0.1\nschedule: fixed", "unexpected keyword argument 'schedule'"),
        ("norm: linf", "attack.eps is missing"),
        ("norm: l2\neps: 0.1", "moves an image by"),
        ("norm: l1\neps: 0.1", "attack.norm must be one of linf, l2"),
    ],
)
def test_mistakes_in_an_attack_are_one_line(
    lines: str, says: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inside / "configs/attack/wrong.yaml").write_text(f"_target_: my_attack.random_fgsm\n{lines}\n")
    before = set(inside.glob("results/runs/*"))
    norm = ["evaluation.norm=l2", "evaluation.eps=0.1"] if "l2" in lines else []
    with pytest.raises(SystemExit):
        main(["train", f"hydra.searchpath=[file://{inside}/configs]", "loss=kl", "attack=wrong", *norm, *TINY])
    message = capsys.readouterr().err
    assert says in message
    assert message.count("error:") == message.count("\n", message.index("error:")) == 1
    assert set(inside.glob("results/runs/*")) == before


@pytest.mark.parametrize(
    ("group", "code", "says"),
    [
        (
            "loss",
            "weighting = 'none'\n    def __call__(self, a, b): return (a - b).sum(-1)",
            "returns [2], not a scalar",
        ),
        ("loss", "weighting = 'none'\n    def __call__(self, a, b): return a @ b", "cannot take two logits [2, 10]"),
        ("data", "def __new__(cls): return [], []", "must return two dkl.data.Images"),
        ("task", "def step(self, batch, progress): return 1", "step returns a int: decorate it with @contextmanager"),
        (
            "task",
            "@contextmanager\n    def step(self, batch, progress): yield 1",
            "yields a int: yield a dkl.tasks.Output",
        ),
        (
            "task",
            "@contextmanager\n    def step(self, batch, progress): yield Output(batch.images)",
            "yields a loss [80, 1, 8, 8], not a scalar",
        ),
    ],
)
def test_mistakes_in_a_class_are_one_line(
    group: str, code: str, says: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, model = ("(Task)", "\n    def __init__(self, model): self.model = model") if group == "task" else ("", "")
    (inside / "wrong.py").write_text(
        "from contextlib import contextmanager\nfrom dkl.tasks import Output, Task\n"
        f"class Wrong{base}:{model}\n    {code}\n"
    )
    (inside / f"configs/{group}/wrong.yaml").write_text(CHOICES[group])
    plain = {
        "loss": [],
        "task": ["loss=none", "attack=none"],
        "data": ["loss=none", "attack=none", "task=classification"],
    }
    with pytest.raises(SystemExit):
        main(["train", f"hydra.searchpath=[file://{inside}/configs]", *plain[group], f"{group}=wrong", *TINY])
    message = capsys.readouterr().err
    assert says in message
    assert message.count("error:") == message.count("\n", message.index("error:")) == 1


@pytest.mark.parametrize(
    ("group", "name", "settings"),
    [("loss", "CosineGap", "weight: 5.0\n"), ("attack", "random_fgsm", "norm: linf\neps: 0.1\n")],
)
def test_a_run_is_not_continued_by_edited_code(
    group: str, name: str, settings: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, code = inside / f"edited_{group}.py", (inside / f"my_{group}.py").read_text()
    file.write_text(code)
    (inside / f"configs/{group}/edited.yaml").write_text(f"_target_: edited_{group}.{name}\n{settings}")
    command = ["train", f"hydra.searchpath=[file://{inside}/configs]", "loss=kl", f"{group}=edited", *TINY]
    main(command)
    main(command)
    assert "already trained" in capsys.readouterr().err
    sys.modules.pop(f"edited_{group}")
    file.write_text(f"{code}\n")
    with pytest.raises(SystemExit):
        main(command)
    assert f"with another file of edited_{group}.{name}: move the folder" in capsys.readouterr().err


def test_a_typing_error_is_compared_with_the_keys_of_your_choice(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", f"hydra.searchpath=[file://{inside}/configs]", "loss=cosine", "loss.weigth=2"])
    assert "did you mean loss.weight?" in capsys.readouterr().err


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
