"""Networks of five kinds that others made are evaluated by one line each."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dkl.cli import main
from dkl.data import digits
from dkl.evaluation.verification import verify
from dkl.models import create_model
from dkl.records import Record
from tests.evaluation.common import batch_statistics, only_record, shorten_package, trained
from tests.models.sources.test_graphs import export, script

NETS = """
from dkl.data import generated
from tests.evaluation.common import batch_statistics, trained
import copy
import torch
def small(num_classes):
    assert num_classes == 10
    return copy.deepcopy(trained())
def batchwise(num_classes):
    return copy.deepcopy(batch_statistics())
class hiding(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.network, self.hidden = copy.deepcopy(trained()), [torch.nn.BatchNorm2d(1)]
    def forward(self, x):
        return self.network(self.hidden[0](x))
def images(**_):
    return generated([3, 32, 32], 10)
"""
OVERLAP = "20 of 60 test images are among the training images of npz (33.33 %), so accuracies may be too high"
PGD = ["attacks=pgd-2", "n=10", "threads=1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files of one trained network in several formats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = trained()
    parallel = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "model": {"state_dict": parallel}}, "parallel.pth")
    shutil.copy("parallel.pth", "odd \u202e\u200d.pth")
    (tmp_path / "foreign_nets.py").write_text(NETS)
    (tmp_path / "folder").mkdir()
    save_file(model.state_dict(), "folder/model.safetensors")
    Path("folder/config.json").write_text('{"architecture": "small_cnn", "model_args": {"width": 8}}')
    script(model, tmp_path / "net.ts")
    export(model, tmp_path / "net.pt2")
    return tmp_path


def evaluate(*words: str) -> Record:
    shutil.rmtree("results", ignore_errors=True)
    main(["evaluate", *words, *PGD])
    return only_record(Path("results"))[0]


def test_five_kinds_of_networks_have_equal_results(here: Path) -> None:
    lines = {
        "function": ["checkpoint='odd \u202e\u200d.pth'", "model=foreign_nets:small", "data=digits"],
        "timm": [
            "checkpoint=parallel.pth",
            "model=timm:small_cnn",
            "arguments.width=8",
            "data=digits",
            "architecture=Mine",
        ],
        "folder": ["model=local-dir:folder", "data=digits"],
        "script": ["checkpoint=net.ts", "data=digits", "trust=true"],
        "program": ["checkpoint=net.pt2", "data=digits", "trust=true"],
    }
    found = {kind: evaluate(*line) for kind, line in lines.items()}
    assert len({(record.clean, record.robust) for record in found.values()}) == 1
    assert found["function"].clean > 0.7
    assert {record.seed for record in found.values()} == {None}
    # The same weights in the same network are one entry, whatever their file.
    assert found["timm"].row == found["folder"].row
    assert (found["timm"].architecture, found["folder"].architecture) == ("Mine", "small_cnn")
    assert found["timm"].checkpoint_sha256 == found["function"].checkpoint_sha256
    assert len({record.row for record in found.values()}) == 4
    assert found["folder"].method == "folder"
    assert found["function"].method == r"odd \u202e\u200d"


def test_a_model_of_robustbench_brings_its_threat_model(here: Path) -> None:
    torch.save({"state_dict": create_model("preact_resnet18", 10).state_dict()}, "rice.pt")
    data = ["data=cifar10", "data.source._target_=foreign_nets.images"]
    record = evaluate("checkpoint=rice.pt", "model=robustbench:Rice2020", "norm=l2", *data)
    assert (record.method, record.architecture) == ("Rice2020Overfitting", "PreActResNet-18")
    assert (record.norm, record.eps_text) == ("L2", "0.5")
    assert record.model["std"] == [0.2471, 0.2435, 0.2616]


def test_test_images_that_are_training_images_stand_in_the_record_and_on_its_board(here: Path) -> None:
    _, test = digits()
    pixels, labels = test.images.numpy().transpose(0, 2, 3, 1), test.labels.numpy()
    np.savez("train.npz", image=pixels[40:100], label=labels[40:100])
    np.savez("test.npz", image=pixels[:60], label=labels[:60])
    data = ["data=npz", "data.num_classes=10", "data.shape=[1,8,8]", "data.source.train=train.npz"]
    network = ["checkpoint=parallel.pth", "model=timm:small_cnn", "arguments.width=8"]
    main(["evaluate", *network, *data, "data.source.test=test.npz", "attacks=none", "threads=1"])
    assert only_record(here / "results")[0].warnings == [OVERLAP]
    main(["tables"])
    assert OVERLAP in Path("results/tables/npz-accuracy-own.md").read_text()


def test_a_network_that_depends_on_the_batch_is_warned_of_in_record_and_tables(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_package(monkeypatch)
    torch.save(batch_statistics().state_dict(), "batchwise.pt")
    line = ["checkpoint=batchwise.pt", "model=foreign_nets:batchwise", "data=digits", "attacks=bounded", "eps=0.05"]
    main(["evaluate", *line, "tolerance=20", "n=20", "threads=1"])
    record = only_record(Path("results"))[0]
    assert "depends on the other images" in record.warnings[0]
    assert record.bound is None  # of images in other batches it would say nothing
    assert record.versions["attacks"] == "pyautoattack"
    capsys.readouterr()
    main(["evaluate", *line, "tolerance=20", "n=20", "threads=1"])
    assert "already evaluated" in capsys.readouterr().err
    (path,) = Path("results/records").glob("*.json")
    assert verify(path, line[:3], checked=19, seed=0).differ == 0
    main(["tables"])
    assert "depends on the other images" in next(Path("results/tables").glob("*.md")).read_text()


def test_a_network_that_hides_another_in_training_mode_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({f"network.{key}": value for key, value in trained().state_dict().items()}, "hiding.pt")
    with pytest.raises(SystemExit):
        evaluate("checkpoint=hiding.pt", "model=foreign_nets:hiding", "data=digits")
    assert "calls a network in training mode, BatchNorm2d: call the eval()" in capsys.readouterr().err
