"""On a second kind of device every task, loss and data path computes what it computes on the CPU, bit for bit."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dkl.assembly import train
from dkl.config import compose_config
from dkl.losses import IKL, BaseLoss
from dkl.storage import checkpoint
from dkl.tasks import SegmentationDistillation
from tests.device.cases import CASES, NEEDS_TORCHDISTILL, ONLY_FINITE, overrides, write_inputs
from tests.losses.common import PAIR_LOSSES, call, logits, third_argument
from tests.training.common import assert_equal

pytestmark = pytest.mark.pretend_device


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def trained(name: str, inputs: dict[str, str], results: Path, device: str, *more: str) -> dict[str, Any]:
    """Train case ``name`` on ``device``; return its checkpoint without what differs between devices."""
    settings = overrides(name, inputs, f"trainer.device={device}", f"paths.results={results / device}", *more)
    content: dict[str, Any] = checkpoint.read(train(compose_config("train", settings)) / "checkpoint.pt")
    for row in content["rows"]:
        del row["epoch_seconds"], row["images_per_second"]
    del content["config"], content["rng"]["device"]
    content["task"].pop("device", None)
    return content


@pytest.mark.parametrize("name", CASES)
def test_training_equals_that_on_the_cpu(
    name: str, pretend: str, inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A teacher with random weights: its accuracy is measured, but not refused.
    def measure(task: SegmentationDistillation, testing: Any, training: Any) -> None:
        task.test(task.teacher, testing)

    monkeypatch.setattr(SegmentationDistillation, "before_training", measure)
    # Dropout draws from the global generator of its device, and only the CPU's has drawn the initial weights before.
    monkeypatch.setattr(nn.Dropout2d, "forward", lambda dropout, images: images)
    if name in NEEDS_TORCHDISTILL and find_spec("torchdistill") is None:
        pytest.skip("torchdistill is not installed: pip install 'dkl[features]'")
    found = trained(name, inputs, tmp_path, pretend)
    assert all(np.isfinite(row["loss"]) for row in found["rows"])
    if name not in ONLY_FINITE:
        assert_equal(found, trained(name, inputs, tmp_path, "cpu"))


@pytest.mark.parametrize("loss", [*(kind() for kind in PAIR_LOSSES.values()), IKL(weighting="sample")], ids=str)
def test_losses_and_gradients_equal_those_on_the_cpu(loss: BaseLoss, pretend: str) -> None:
    pair, third = logits(6, 10, torch.float32), third_argument(loss, 6, 10, torch.float32)
    found = []
    for device in ("cpu", pretend):
        pair = tuple(side.detach().to(device).requires_grad_() for side in pair)
        value = call(loss, *pair, third.to(device))
        gradients = torch.autograd.grad(value, pair, allow_unused=True)
        found.append([one.cpu() for one in (value.detach(), *gradients) if one is not None])
    assert_equal(found[1], found[0])
