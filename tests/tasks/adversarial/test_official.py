"""Training by the shipped recipes equals the official code's, transcribed: images, loss, weights and BatchNorm.

Two epochs of two steps in float64, AWP and the first epoch's class prior included. What the configurations compose is
what is compared; only sizes, the precision and the epoch from which AWP runs are changed.
"""

import contextlib
import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from dkl.assembly import build_model, build_schedule, build_task, make_batches
from dkl.config import TrainConfig, compose_config, typed
from dkl.config.identity import batch_norm_parts
from dkl.console import Bar
from dkl.data import Batch, Images
from dkl.runtime.distributed import split_batch_norm
from dkl.training.loop import train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer
from tests.official.adversarial import (
    GKL_CIFAR100,
    IKL_AUTOAUG,
    IKL_CIFAR10,
    IKL_CIFAR100,
    TRADES,
    DataParallel,
    OfficialTraining,
    Recipe,
    Training,
    counted_forwards,
    differences,
)

SIZES = [
    *("model=wrn10_2", "data.shape=[3,8,8]", "trainer.batch_size=8", "trainer.epochs=2", "seed=3"),
    *("trainer.precision=float64", "task.awp.start=1"),
]
CIFAR100 = ["data=cifar100", "data.num_classes=12", "recipe=official"]
RECIPES: dict[str, tuple[list[str], Recipe]] = {
    "IKL, CIFAR-100": (CIFAR100, IKL_CIFAR100),
    "IKL, CIFAR-10": (
        ["data=cifar10", "recipe=official", "attack=official_kl", "loss.ce_weight=4"],
        IKL_CIFAR10,
    ),
    "GKL, CIFAR-100": ([*CIFAR100, "loss=gkl", "task.prior_temperature=1"], GKL_CIFAR100),
    "TRADES, CIFAR-10": (["data=cifar10", "recipe=trades_awp"], TRADES),
    "IKL, two views": ([*CIFAR100, "loss.ce_weight=4", "task.aug_weight=0.3"], IKL_AUTOAUG),
}


class TwoViews:
    """``batches`` with a second view of each image: darker, and with noise that follows from epoch and place."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.labels = batches, batches.labels

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        noise = torch.Generator().manual_seed(epoch)
        for images, labels, *_ in self.batches.epoch(epoch):
            second = 0.7 * images + 0.3 * torch.rand(images.shape, generator=noise, dtype=images.dtype)
            yield Batch(torch.cat([images, second]), labels.repeat(2), 2)


class Pair:
    """One model trained by ``overrides`` in the shipped loop, and its copy by the official ``recipe``."""

    def __init__(self, overrides: list[str], recipe: Recipe, *, views: int) -> None:
        self.cfg = cfg = compose_config("train", [*overrides, *SIZES])
        self.model = build_model(cfg.model).double().to(memory_format=torch.channels_last)
        self.task = build_task(cfg.task, self.model)
        self.optimizer = make_optimizer(cfg.optimizer, self.task.named_parameters())
        classes = cfg.data.num_classes
        images = Images(torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % classes)
        batches = make_batches(typed(cfg, TrainConfig), images, torch.device("cpu"), training=True)
        self.batches = batches if views == 1 else TwoViews(batches)
        twin = DataParallel(copy.deepcopy(self.model))
        split_batch_norm(self.model, batch_norm_parts(cfg.trainer))
        self.official = OfficialTraining(
            twin, replace(recipe, awp_warmup=1), num_classes=classes, epochs=2, seed=cfg.seed
        )

    def ours(self, epoch: int) -> float:
        apply_schedule(
            build_schedule(self.cfg.schedule), self.optimizer, lr=self.cfg.optimizer.lr, epoch=epoch, epochs=2
        )
        progress = Bar("", len(self.batches), 0, Console(file=io.StringIO()))
        return train_epoch(self.task, self.batches, self.optimizer, epoch=epoch, epochs=2, bar=progress)["loss"]

    def theirs(self, epoch: int) -> float:
        return self.official.epoch(self.batches.epoch(epoch), epoch)

    def compare(self, epoch: int) -> dict[str, float]:
        official = self.official
        return differences(
            Training(self.model, self.optimizer, lambda: self.ours(epoch)),
            Training(official.model, official.optimizer, lambda: self.theirs(epoch)),
        )


def compare(name: str, *changes: str, epochs: int = 2) -> list[dict[str, float]]:
    """What differs after each epoch of the recipe ``name`` where ours has ``changes``."""
    overrides, recipe = RECIPES[name]
    pair = Pair([*overrides, *changes], recipe, views=2 if name.endswith("views") else 1)
    return [pair.compare(epoch) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("name", RECIPES)
def test_four_steps_equal_the_official_codes(name: str) -> None:
    first, second = compare(name)
    assert max(first.values()) <= 1e-12, first
    assert max(second.values()) <= 1e-12, second


@pytest.mark.parametrize(
    ("name", "change", "epoch"),
    [
        ("IKL, CIFAR-100", ["trainer.batch_norm_share=1"], 1),
        ("IKL, two views", ["trainer.batch_norm_share=2"], 1),
        ("IKL, CIFAR-100", ["task.awp.gamma=0"], 1),
        ("TRADES, CIFAR-10", ["task.awp.gamma=0"], 1),
        ("IKL, CIFAR-100", ["attack.schedule=fixed", "+attack.steps=4", "+attack.relative_step=0.5"], 1),
        ("IKL, CIFAR-100", ["attack=official_kl"], 1),
        ("IKL, CIFAR-100", ["task.prior_momentum=0.5"], 2),
        ("GKL, CIFAR-100", ["task.prior_temperature=4"], 2),
        ("IKL, two views", ["task.aug_weight=0.5"], 1),
    ],
    ids=lambda value: value[0].split(".")[-1] if isinstance(value, list) else None,
)
def test_another_setting_shows(name: str, change: list[str], epoch: int) -> None:
    *before, found = compare(name, *change, epochs=epoch)
    assert found["weights"] >= 1e-6
    assert all(max(earlier.values()) <= 1e-12 for earlier in before)  # what changes the prior acts in epoch 2


def test_weight_perturbation_that_moves_batchnorms_buffers_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def training(model: nn.Module) -> Iterator[nn.Module]:
        yield model.train()

    monkeypatch.setattr("dkl.tasks.adversarial.batch_statistics", training)
    (found,) = compare("IKL, CIFAR-100", epochs=1)
    assert found["buffers"] >= 1e-6


def test_our_forwards_are_fewer() -> None:
    overrides, recipe = RECIPES["IKL, CIFAR-100"]
    pair = Pair(overrides, recipe, views=1)
    assert pair.official.awp is not None
    with counted_forwards(pair.model) as ours:
        pair.ours(1)
    with counted_forwards(pair.official.model, pair.official.awp.proxy) as theirs:
        pair.theirs(1)
    assert ours == [8] * 2 * (1 + 5 + 2 + 2)  # natural logits, five steps, weight perturbation, loss
    assert theirs == [8] * 2 * (2 * 5 + 2 + 2)
