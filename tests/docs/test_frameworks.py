"""The code of docs/losses.md for each framework trains a student in it, if the framework is installed."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from tests.docs.pages import ROOT, Block, blocks

LIBRARIES = ("lightning", "transformers", "accelerate", "timm.task", "torchdistill")
_PAGE = blocks(ROOT / "docs" / "losses.md")
_IMPORTS = next(block for block in _PAGE if "import IKL, IKLLoss" in block.text)
FRAMEWORKS: dict[str, Block] = {
    **{name: next(b for b in _PAGE if re.search(rf"^(import|from) {name}\b", b.text, re.M)) for name in LIBRARIES},
    "plain": next(block for block in _PAGE if block.text.startswith("criterion = IKLLoss(")),
}
"""Library -> the block of the page that uses it."""


class Teacher(nn.Module):
    """A network that is easy to follow: its logits are the means over patches of the images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 10).mean(1).flatten(1) * 5


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page says is the reader's, and its imports; files are written to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    student = timm.create_model("test_resnet", num_classes=100)
    dataset = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    found = {
        "teacher": Teacher(),
        "student": student,
        "optimizer": torch.optim.SGD(student.parameters(), lr=0.1),
        "loader": DataLoader(dataset, batch_size=4),
    }
    exec(_IMPORTS.text, found)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", FRAMEWORKS)
def test_the_student_is_trained(library: str, scope: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if library != "plain":
        pytest.importorskip(library)
    losses, tables = scope["IKLLoss"], []
    monkeypatch.setattr(losses, "end_epoch", lambda self: (tables.append(self), self.prior.end_epoch()))
    student = scope["student"]
    before = [parameter.detach().clone() for parameter in student.parameters()]
    exec(FRAMEWORKS[library].text, scope)
    if library == "torchdistill":
        _train_with_torchdistill(scope)
    assert not all(map(torch.equal, before, student.parameters()))
    if library not in ("timm.task", "torchdistill"):  # those have sample-wise weights
        (criterion,) = set(tables)
        assert len(tables) == 2
        assert not torch.allclose(criterion.prior.table[:8], torch.full((8, 100), 0.01))


def _train_with_torchdistill(scope: dict[str, Any]) -> None:
    """One epoch by torchdistill's own box, with the criterion of the page."""
    from torchdistill.core.distillation import get_distillation_box

    (config,) = (yaml.safe_load(block.text) for block in _PAGE if block.kind == "yaml")
    loading = {"dataset_id": "train", "sampler": {"class_or_func": SequentialSampler}, "kwargs": {"batch_size": 4}}
    forward = {"forward_proc": "forward_batch_only"}
    config |= {"num_epochs": 1, "train_data_loader": loading, "teacher": forward, "student": forward}
    config |= {"optimizer": {"key": "SGD", "kwargs": {"lr": 0.1}}}
    data = {"train": scope["loader"].dataset}
    device = torch.device("cpu")
    box = get_distillation_box(scope["teacher"], scope["student"], data, config, device, None, False, 1.0)
    box.pre_epoch_process(epoch=0)
    for images, labels, supplement in itertools.islice(box.train_data_loader, 2):
        box.pre_forward_process()
        box.post_forward_process(loss=box.forward_process(images, labels, supplement))
    box.post_epoch_process()
