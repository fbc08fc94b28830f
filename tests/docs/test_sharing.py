"""docs/sharing.md as a stranger follows it: every command from top to bottom, in an empty folder."""

import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dkl
from dkl.cli import main
from tests.docs.pages import ROOT, blocks, commands
from tests.evaluation.common import shorten

PAGE = ROOT / "docs" / "sharing.md"
FAST = {"train": ["trainer.epochs=2", "trainer.threads=1"], "evaluate": ["threads=1"], "verify": ["threads=1"]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the page's Python file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    (code,) = (block.text for block in blocks(PAGE) if block.kind == "python")
    (tmp_path / "friend.py").write_text(code)
    runpy.run_path("friend.py", run_name="__main__")
    yield tmp_path
    sys.modules.pop("friend", None)


def named(word: str) -> str:
    """``word`` with the file or folder that ``NAME`` stands for: the run, its record, or the friend's."""
    before, found, ending = word.partition("NAME")
    if not found:
        return word
    key, equals, folder = before.rpartition("=")
    made = Path(folder).glob(f"digits-*{ending}")
    (path,) = (path for path in made if "-s0-" in path.name or "-Friend-" in path.name)
    return f"{key}{equals}{path}"


@pytest.mark.slow
def test_every_command_of_the_page_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(monkeypatch, steps=3, queries=20)
    for line in commands(PAGE):
        command, *words = map(named, shlex.split(line)[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main([command, *words, *FAST.get(command, [])])
    printed = capsys.readouterr()
    assert printed.err.count("\nverified: ") == 2
    shown = (here / "results" / "tables" / "entries-digits-Linf-eps0.1.md").read_text()
    assert shown.count("| verified, ≤ ") == 2, "the last board shows the verified entries only"
    assert "| Folder" not in shown
    assert "Cui2023Decoupled_WRN-28-10" in printed.out
    x = torch.rand(2, 1, 8, 8)
    (run,) = here.glob("results/runs/digits-*")
    for name, trust in (("mine", False), ("mine-graph/model.pt2", True)):
        torch.testing.assert_close(dkl.load_model(name, trust=trust)(x), dkl.load_model(run)(x))
    assert dkl.load_model("friend:network", checkpoint="friend.pth", data="digits")(x).shape == (2, 10)
