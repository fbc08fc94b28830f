"""The small network of docs/sharing.md goes all the way: trained, evaluated, entered, verified, and exported."""

import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dkl
from dkl.cli import main
from dkl.models import create_model
from tests.docs.pages import ROOT, commands

LINES = [shlex.split(line)[1:] for line in commands(ROOT / "docs" / "sharing.md")]
FRIEND = "from dkl.models import create_model\ndef network(num_classes):\n    return create_model('small_cnn', 10, 1)\n"
OFFLINE = ("hf-hub:", "robustbench:", "push=", "format=onnx", "format=robustbench", "dataset=cifar10")
"""Words of lines that need a hub, an extra, or weights, images or a network that are not here."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a friend's network, its weights and a graph file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    (tmp_path / "friend.py").write_text(FRIEND)
    (tmp_path / "friend" / "results" / "records").mkdir(parents=True)
    torch.manual_seed(0)
    network = create_model("small_cnn", 10, 1).eval()
    torch.save(network.state_dict(), "friend.pth")
    program = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, "friend.pt2")
    yield tmp_path
    sys.modules.pop("friend", None)


@pytest.mark.slow
def test_every_line_of_the_page_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = {"train": ["trainer.epochs=1", "trainer.threads=1"], "evaluate": ["attacks=pgd-2", "threads=1"]}
    for command, *words in LINES:
        if any(part in word for word in words for part in OFFLINE):
            continue
        runs = list(here.glob("results/runs/digits-*"))
        ours = next((path for path in here.glob("results/records/*.json") if "-s0-" in path.name), None)
        theirs = next((path for path in here.glob("results/records/*Friend*.json")), None)
        record = ours if any(word.startswith("run=") for word in words) else theirs
        replaced = [word.replace("results/runs/NAME", str(runs[0]) if runs else "") for word in words]
        replaced = [word.replace("results/records/NAME.json", str(record)) for word in replaced]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main([command, *replaced, *fast.get(command, [])])
    said = capsys.readouterr().err
    assert said.count("verified: ") == 2
    assert "NOT verified" not in said
    x = torch.rand(2, 1, 8, 8)
    (run,) = here.glob("results/runs/digits-*")
    torch.testing.assert_close(dkl.load_model(here / "mine")(x), dkl.load_model(run)(x))
