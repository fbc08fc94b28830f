"""Training as this project does it equals the official code's, transcribed: images, loss, weights and BatchNorm."""

import copy
import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from dkl.attacks import TrainingAttack
from dkl.console import Bar
from dkl.data import Augment, Batches, Images
from dkl.losses import IKL
from dkl.models import create_model
from dkl.tasks import AdversarialTraining
from dkl.training.loop import train_epoch
from tests.reference import OfficialTraining, counted_forwards, differences

CLASSES, STEPS, EPS = 10, 3, 8 / 255
SILENT = Console(file=io.StringIO())


def make_model() -> nn.Module:
    return create_model("wrn10_2", num_classes=CLASSES).double()


def make_optimizer(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def make_batches() -> Batches:
    """Five batches of 8 images 16×16 that show every class, cropped and mirrored."""
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    augment = Augment(crop_padding=4, flip=True)
    data = Images(images, torch.arange(40) % CLASSES)
    return Batches(data, 8, augment=augment, shuffle=True, dtype=torch.float64)


class Ours:
    """``AdversarialTraining`` in the shipped loop, at the settings of ``official`` and in float64, prior included."""

    def __init__(self, model: nn.Module, steps: int = STEPS, prior_momentum: float = 1.0) -> None:
        objective = IKL(wmse_weight=1.0, ce_weight=1.0)
        attack = TrainingAttack(
            eps=EPS, schedule="fixed", steps=steps, relative_step=0.5, ramp=False, objective=objective
        )
        self.task = AdversarialTraining(
            model, IKL(), attack, num_classes=CLASSES, prior_momentum=prior_momentum, seed=3
        )
        self.task.prior.double().table.fill_(1 / CLASSES)
        self.optimizer = make_optimizer(model)

    def epoch(self, batches: Batches, epoch: int) -> float:
        bar = Bar("", len(batches), 0, SILENT)
        return train_epoch(self.task, batches, self.optimizer, epoch=epoch, epochs=2, bar=bar)["loss"]


def official(model: nn.Module) -> OfficialTraining:
    return OfficialTraining(
        model=model,
        optimizer=make_optimizer(model),
        generator=torch.Generator().manual_seed(3),
        num_classes=CLASSES,
        eps=EPS,
        step_size=EPS / 2,
        steps=STEPS,
    )


def compare(epochs: int, **changes: Any) -> dict[str, float]:
    """What differs in the last of ``epochs``; the first has a uniform prior, the second the first one's."""
    model, batches = make_model(), make_batches()
    twin = copy.deepcopy(model)
    ours, theirs = Ours(model, **changes), official(twin)
    for epoch in range(1, epochs + 1):
        found = differences(
            model,
            lambda epoch=epoch: ours.epoch(batches, epoch),
            twin,
            lambda epoch=epoch: theirs.epoch(batches.epoch(epoch)),
        )
    return found


@pytest.mark.parametrize("epochs", [1, 2], ids=["uniform prior", "class prior"])
def test_five_steps_equal_the_official_codes(epochs: int) -> None:
    found = compare(epochs)
    assert found["images"] <= 1e-12
    assert found["loss"] <= 1e-12
    assert found["weights"] <= 1e-12
    assert found["buffers"] <= 1e-12


def test_one_attack_step_fewer_shows() -> None:
    found = compare(1, steps=STEPS - 1)
    assert found["images"] >= EPS / 2
    assert min(found.values()) >= 1e-5


def test_another_class_prior_shows() -> None:
    assert compare(1, prior_momentum=0.5)["weights"] <= 1e-12
    assert compare(2, prior_momentum=0.5)["weights"] >= 1e-8


def test_natural_logits_are_computed_once_an_attack() -> None:
    model, batches = make_model(), make_batches()
    with counted_forwards(model) as ours:
        Ours(model).epoch(batches, 1)
    with counted_forwards(model) as theirs:
        official(model).epoch(batches.epoch(1))
    assert ours == [8] * 5 * (1 + STEPS + 2)
    assert theirs == [8] * 5 * (2 * STEPS + 2)
