"""How many kernels a training step launches, and how often the CPU waits for the device: pinned, so that it shows."""

import io
from itertools import count

import pytest
import torch
from rich.console import Console

from dkl.assembly import build_model, build_task, make_batches
from dkl.config import TrainConfig, compose_config, typed
from dkl.console import Bar
from dkl.data import Images
from dkl.runtime.distributed import _in_one
from dkl.training.loop import train_epoch
from dkl.training.optimizer import make_optimizer
from tests.device.pretend import Ledger, counting

pytestmark = pytest.mark.pretend_device

OFFICIAL = ("recipe=official", "loss=ikl", "averaging=none", "model=preact_resnet18_w16", "task.awp.start=1")
STEPS = 2


def steps(device: str, *overrides: str) -> Ledger:
    """Count what ``STEPS`` steps on batches of two images launch and wait for, after an epoch to warm up."""
    given = ["data=cifar100", "trainer.batch_size=2", "data.augment.crop_padding=4", "data.augment.flip=true"]
    config = typed(compose_config("train", [*given, *overrides, f"trainer.device={device}"]), TrainConfig)
    model = build_model(config.model).to(device, memory_format=torch.channels_last)
    task = build_task(config.task, model)
    optimizer = make_optimizer(config.optimizer, task.named_parameters(), model)
    images = Images(torch.randint(256, (2 * STEPS, 3, 32, 32), dtype=torch.uint8), torch.arange(2 * STEPS))
    batches = make_batches(config, images, torch.device(device), training=True)
    epoch = count(1)

    def run() -> None:
        bar = Bar("", 4, 0, Console(file=io.StringIO()))
        train_epoch(task, batches, optimizer, epoch=next(epoch), epochs=200, bar=bar)

    run()
    with counting() as ledger:
        run()
    return ledger


def test_a_step_of_the_official_recipe(pretend: str) -> None:
    ledger = steps(pretend, *OFFICIAL)
    launches = sum(ledger.launches.values())
    # 1,026 of 1,701.5 are convolutions, BatchNorms and ReLUs in ten forward and nine backward passes.
    assert launches / STEPS <= 1705, ledger.launches.most_common()
    # The loss and the change of weights are checked in every step; the metrics of an epoch are read once.
    assert ledger.waits == {
        ("item", "loop.py: train_epoch"): STEPS,
        ("item", "adversarial.py: perturbed"): STEPS,
        ("copy to the host", "loop.py: _mean"): 1,
    }


def test_gradients_are_exchanged_in_three_launches(pretend: str) -> None:
    shapes = [(8, 3, 3, 3), (8,), (4, 8), (16, 8, 3, 3)]
    like = [torch.rand(shape).to(pretend) for shape in shapes]
    like = [one.to(memory_format=torch.channels_last) if one.ndim == 4 else one for one in like]
    gradients = [torch.rand_like(one) for one in like]
    with counting() as ledger:
        _in_one(gradients, lambda flat: flat.mul_(2), like)
    assert sum(ledger.launches.values()) == 3, ledger.launches
