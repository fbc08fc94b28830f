"""The program works from any directory, sweeps, lists its choices, and is the same however it is started."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dkl import __version__
from dkl.cli.main import COMMANDS as KNOWN
from dkl.storage import checkpoint
from tests.cli.common import call
from tests.configs.common import CHOICES, CONFIGS, GROUPS, reason
from tests.training.common import TINY

COMMANDS = ["train", "evaluate", "reproduce", "tables", "runs"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, where results would be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    monkeypatch.delenv("DKL_DATA_DIR", raising=False)


def listed(page: str, title: str) -> dict[str, str]:
    """Choice -> line, below ``title``."""
    lines = page.splitlines()
    found: dict[str, str] = {}
    for line in lines[lines.index(title) + 1 :]:
        if not line.startswith("  "):
            break
        name, _, text = line.strip().partition(" ")
        found[name] = text.strip()
    return found


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_train_lists_every_choice_with_its_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "train", flag)
    assert ended.status == 0
    for group in GROUPS:
        expected = {choice: reason(CONFIGS / group / f"{choice}.yaml") for where, choice in CHOICES if where == group}
        assert listed(ended.out, group) == expected
    assert "wmse_weight: 20.0" in ended.out
    assert "batch_size: 128" in ended.out


def test_help_of_evaluate_lists_data_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    page = call(capsys, "evaluate", "--help").out
    for group in ("data", "model"):
        assert set(listed(page, group)) == {choice for where, choice in CHOICES if where == group}
    assert "run=FOLDER" in page
    assert "attacks: null" in page


def test_help_of_reproduce_lists_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    page = call(capsys, "reproduce", "--help").out
    files = (CONFIGS.parent / "experiments").glob("*.yaml")
    assert listed(page, "experiments") == {path.stem: reason(path) for path in files}


def test_help_of_tables_and_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert "results=FOLDER" in call(capsys, "tables", "--help").out
    pages = [call(capsys, *arguments) for arguments in ([], ["--help"], ["-h"])]
    assert {page.status for page in pages} == {0}
    assert len({page.out for page in pages}) == 1
    for command in COMMANDS:
        assert f"dkl {command}" in pages[0].out


def test_help_wins_over_other_arguments_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert call(capsys, command, "nope=1", "--help").status == 0
    assert list(tmp_path.iterdir()) == []


def test_a_shell_completes_every_option_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    completed = {}
    for command in ("reproduce", "verify"):
        monkeypatch.setenv("COMP_LINE", f"dkl {command} ")
        completed[command] = call(capsys, "-sc", "query=bash").out.split()
    assert completed["reproduce"][:2] == ["table=", "figure="]
    assert completed["verify"] == ["checkpoint=", "run=", "model=", "data=", "n=", "seed=", "attacks="]
    (tmp_path / "results" / "runs" / "digits-small_cnn-ikl-s0-1234abcd").mkdir(parents=True)
    for line, words in {
        "dkl evaluate run=": ["run=results/runs/digits-small_cnn-ikl-s0-1234abcd"],
        "dkl evaluate run=x attacks=pg": ["attacks=pgd", "attacks=pgd-20"],
        "dkl reproduce experiment=quick": ["experiment=quickstart"],
        "dkl train loss=gk": ["loss=gkl", "loss=gkl_kd", "loss=gkl_ssl"],
    }.items():
        monkeypatch.setenv("COMP_LINE", line)
        assert set(words) <= set(call(capsys, "-sc", "query=bash").out.split())


def test_a_configuration_is_printed_without_torch(tmp_path: Path) -> None:
    """With the choices of a folder of one's own."""
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: my_loss.Mine\n")
    code = "import sys, dkl.cli; dkl.cli.main(sys.argv[1:]); assert not {'torch', 'timm'} & set(sys.modules)"
    command = ["train", "--config-dir", ".", "--cfg", "job", "seed=3", "loss=mine"]
    ended = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^seed: 3$", ended.stdout, re.MULTILINE)
    assert "_target_: my_loss.Mine" in ended.stdout


def test_a_finished_run_is_reported_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", *TINY, "trainer.epochs=1"]
    trained = call(capsys, *command)
    code = "import sys, dkl.cli; dkl.cli.main(sys.argv[1:]); assert not {'torch', 'timm'} & set(sys.modules)"
    again = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "already trained, 1 epochs" in again.stderr
    assert again.stderr.splitlines()[-1] == trained.err.splitlines()[-1]  # the next command
    (checkpoint_file,) = tmp_path.rglob("checkpoint.pt")
    checkpoint_file.write_bytes(checkpoint_file.read_bytes()[:-100])
    assert "is damaged" in call(capsys, *command).err


def test_python_m_dkl_is_the_console_program(tmp_path: Path) -> None:
    console = Path(sys.executable).with_name("dkl")
    results = [
        subprocess.run([*program, *arguments], capture_output=True, text=True, cwd=tmp_path)
        for arguments in (["--version"], ["nope"])
        for program in ([str(console)], [sys.executable, "-m", "dkl"])
    ]
    for one, other in (results[:2], results[2:]):
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert results[0].stdout == f"dkl {__version__}\n"
    assert results[2].returncode == 2


def test_a_run_from_another_directory_writes_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "train", *TINY, "trainer.epochs=1")
    assert ended.status == 0, ended.err
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert checkpoint.read(folder / "checkpoint.pt")["epoch"] == 1
    assert str(Path("results/runs") / folder.name) in ended.err


def test_a_sweep_trains_every_combination_and_continues_after_a_failed_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = [
        "loss=kl,ikl",
        "+model.mean=[0]",
        "+model.std=[1e-38],[1]",
        "optimizer.lr=0.05",
        "trainer.epochs=1",
        "data.train_size=200",
        "data.test_size=16",
    ]
    ended = call(capsys, "train", "trainer.threads=1", "-m", *sweep)
    assert ended.status == 2
    assert ended.err.count("\nerror: ") == 2  # an image divided by 1e-38 is not finite
    trained = [path.parent for path in (tmp_path / "results" / "runs").glob("*/checkpoint.pt")]
    contents = {folder.name: checkpoint.read(folder / "checkpoint.pt") for folder in trained}
    assert sorted(name[:-8] for name in contents) == ["digits-small_cnn-ikl-s0-", "digits-small_cnn-kl-s0-"]
    for name, content in contents.items():
        assert (content["epoch"], content["config"]["model"]["std"]) == (1, [1])
        assert f"-{content['config']['loss']['_target_'].rpartition('.')[2].lower()}-" in name
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_dry_run_prints_commands_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "reproduce", "dry_run=true", "seed=3,4", "row=IKL-AT", "trainer.epochs=2")
    assert ended.status == 0
    lines = [line for line in ended.out.splitlines() if line.startswith("dkl train")]
    assert len(lines) == 2
    for line, seed in zip(lines, (3, 4), strict=True):
        assert {"loss=ikl", "trainer.epochs=2", f"seed={seed}", "label=IKL-AT"} <= set(line.split())
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: str) -> Callable[[list[str]], None]:
        def command(arguments: list[str]) -> None:
            raise ImportError("libtorch_cpu.so: failed to map segment from shared object", path=path)

        return command

    monkeypatch.setitem(KNOWN, "train", fails("torch/_C.so"))
    ended = call(capsys, "train")
    assert ended.status == 2
    assert ended.err.startswith("error: libtorch_cpu.so: failed to map segment")
    assert len(ended.err.splitlines()) == 1
    monkeypatch.setitem(KNOWN, "train", fails("dkl/tasks/__init__.py"))  # a defect, not the machine's
    with pytest.raises(ImportError):
        call(capsys, "train")
