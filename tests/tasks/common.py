"""A tiny network with BatchNorm whose forwards are recorded, and tasks around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.losses import IKL, PairLoss
from dkl.tasks import Output, Progress, Task, TradesTraining
from tests.official.baselines import EPS

CLASSES = 4


def make_net() -> nn.Sequential:
    """Logits of images [B, 1, 4, 4]."""
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten(), nn.Linear(80, CLASSES)
    )


def make_batch(size: int = 9, classes: int = CLASSES) -> Batch:
    """Images away from 0 and 1, so that no attack of radius EPS is clipped."""
    return Batch(0.2 + 0.6 * torch.rand(size, 1, 4, 4), torch.arange(size) % classes)


def make_attack(**changes: Any) -> TrainingAttack:
    """Three steps at a fixed eps that raise the cross-entropy; ``changes`` replace settings."""
    settings: dict[str, Any] = {"eps": EPS, "schedule": "fixed", "steps": 3, "relative_step": 0.5, "ramp": False}
    return TrainingAttack(**(settings | changes))


def make_task(
    model: nn.Module, loss: PairLoss | None = None, attack: TrainingAttack | None = None, **settings: Any
) -> TradesTraining:
    """Adversarial training with small weights."""
    loss = loss or IKL(wmse_weight=3.0, ce_weight=2.0)
    return TradesTraining(model, loss, attack or make_attack(), num_classes=CLASSES, **settings)


def two_views(size: int = 9) -> Batch:
    """Images and, after them, another view of each, in float64."""
    one, other = make_batch(size), make_batch(size)
    return Batch(torch.cat([one.images, other.images]).double(), one.labels.repeat(2), 2)


def share_of(batch: Batch, first: int, count: int) -> Batch:
    """Images ``first`` to ``first + count`` of each view of a whole batch, as one process gets them."""
    total = len(batch.labels) // batch.views
    places = torch.cat([view * total + torch.arange(first, first + count) for view in range(batch.views)])
    indices = None if batch.indices is None else batch.indices[first : first + count]
    return Batch(batch.images[places], batch.labels[places], batch.views, first, total, indices)


@dataclass
class Forward:
    """One call of a model: its mode, whether any parameter wanted gradients, what went in and came out."""

    training: bool
    differentiated: bool
    images: Tensor
    logits: Tensor


@dataclass
class Spy:
    """Every forward of a model, in order."""

    model: nn.Module
    calls: list[Forward] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.register_forward_hook(self._note)

    def _note(self, model: nn.Module, args: tuple[Tensor], logits: Tensor) -> None:
        wanted = any(parameter.requires_grad for parameter in model.parameters())
        self.calls.append(Forward(model.training, wanted, args[0].detach().clone(), logits.detach().clone()))


@dataclass(frozen=True)
class SpyLoss:
    """A pair loss that keeps the keyword arguments it is given."""

    weighting: str
    seen: list[dict[str, Tensor]] = field(default_factory=list)

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, **given: Tensor) -> Tensor:
        self.seen.append({name: value.clone() for name, value in given.items()})
        return (natural_logits - adversarial_logits).square().sum()


class _Interrupted(BaseException):
    """Like a KeyboardInterrupt, caught by nothing."""


@contextmanager
def interrupted(task: type[Task]) -> Iterator[None]:
    """Training with ``task`` inside is interrupted within the second step of the second epoch."""
    original = task.step

    @contextmanager
    def step(self: Task, batch: Batch, progress: Progress) -> Iterator[Output]:
        with original(self, batch, progress) as out:
            if (progress.epoch, progress.step) == (2, 1):
                raise _Interrupted
            yield out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "step", step)
        with pytest.raises(_Interrupted):
            yield
