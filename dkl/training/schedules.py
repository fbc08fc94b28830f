"""Learning rates as pure functions of the epoch, or of the step.

A schedule returns ``lr_factor(epoch, epochs)``, the share of the peak ``optimizer.lr`` in an epoch. Epochs are counted
from 1. In the equations e is the epoch, E the number of epochs and w ``warmup_epochs``. A schedule with
``per = "step"`` is called before every step instead, with the step, counted from 1 over the whole training, and the
number of all steps. A configuration chooses a schedule by ``schedule=<name>``, which sets ``_target_`` to one of these
classes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from dkl.errors import UserError
from dkl.validation import EPOCHS, FRACTION, Range, check_fields


class Schedule(ABC):
    """Learning rate, and possibly momentum, over the epochs; over the steps if ``per`` is ``step``."""

    per: ClassVar[Literal["epoch", "step"]] = "epoch"

    def __post_init__(self) -> None:
        check_fields(self, "schedule")

    @abstractmethod
    def lr_factor(self, epoch: int, epochs: int) -> float:
        """Return the share of the peak rate in ``epoch`` of ``epochs``, in [0, 1]."""

    def momentum(self, epoch: int, epochs: int) -> float | None:
        """Return the momentum of ``epoch``, or None if it stays as the optimizer has it."""
        return None


@dataclass(frozen=True, kw_only=True)
class WarmupSchedule(Schedule):
    """Rises linearly for ``warmup_epochs``, then follows ``after_warmup``.

    Without ``warmup_lr`` the factor is e/w before epoch w, as in the official code. With it the rate starts at
    ``warmup_lr`` and the factor is s + (1 − s)(e − 1)/w up to epoch w, where s = warmup_lr / peak_lr, as in timm.
    Raises UserError if a value is out of range.
    """

    warmup_epochs: Annotated[int, EPOCHS] = 0
    warmup_lr: Annotated[float | None, Range(0, 1000)] = None
    peak_lr: Annotated[float, Range(0, 1000)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_lr is not None and not 0 < self.warmup_lr <= self.peak_lr:
            raise UserError(
                f"schedule.warmup_lr={self.warmup_lr} must be above 0 and at most optimizer.lr={self.peak_lr}; null "
                "starts at optimizer.lr / schedule.warmup_epochs"
            )

    @abstractmethod
    def after_warmup(self, epoch: int, epochs: int) -> float:
        """Return the factor of an epoch after the warm-up."""

    def lr_factor(self, epoch: int, epochs: int) -> float:
        w = self.warmup_epochs
        if self.warmup_lr is None:
            return epoch / w if epoch < w else self.after_warmup(epoch, epochs)
        start = self.warmup_lr / self.peak_lr
        return start + (1 - start) * (epoch - 1) / w if epoch <= w else self.after_warmup(epoch, epochs)


@dataclass(frozen=True, kw_only=True)
class Cosine(WarmupSchedule):
    """½(1 + cos(π(e − w)/(E − w + 1))) from epoch w on: the schedule of the official IKL code.

    Without warm-up the first epoch is already below the peak; the last is above zero. With w = 10 of 90 epochs it is
    the schedule of ImageNet-LT.
    """

    def after_warmup(self, epoch: int, epochs: int) -> float:
        w = self.warmup_epochs
        return 0.5 * (1 + math.cos(math.pi * (epoch - w) / max(epochs - w + 1, 1)))


@dataclass(frozen=True, kw_only=True)
class CosineAnnealing(WarmupSchedule):
    """½(1 + cos(π(e − 1)/E)): the official TRADES code, torch's CosineAnnealingLR and timm's cosine."""

    def after_warmup(self, epoch: int, epochs: int) -> float:
        """Return the cosine. It does not restart after the warm-up."""
        return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


@dataclass(frozen=True, kw_only=True)
class Step(WarmupSchedule):
    """``decay`` to the power of the number of ``milestones`` passed: rising shares of training in (0, 1)."""

    milestones: Annotated[Sequence[float], Range(0, 1, above=True, below=True)] = ()
    decay: Annotated[float, Range(0, 1)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(first >= second for first, second in pairwise(self.milestones)):
            raise UserError(f"schedule.milestones={list(self.milestones)} must rise, such as [0.5, 0.75]")

    def after_warmup(self, epoch: int, epochs: int) -> float:
        # "after": with milestone 0.5 of 200 epochs, epoch 100 still has the old rate.
        passed = sum(epoch > share * epochs for share in self.milestones)
        return self.decay**passed


@dataclass(frozen=True, kw_only=True)
class Constant(WarmupSchedule):
    """The peak rate."""

    def after_warmup(self, epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Poly(Schedule):
    """(1 − (i − 1)/I)^``power`` before step i of I: the schedule of semseg and APD, and DeepLab's "poly"."""

    power: Annotated[float, Range(0, 100)] = 0.9
    per: ClassVar[Literal["epoch", "step"]] = "step"

    def lr_factor(self, epoch: int, epochs: int) -> float:
        return (1 - (epoch - 1) / epochs) ** self.power


@dataclass(frozen=True, kw_only=True)
class CosineSteps(Schedule):
    """max(0, cos(π · cycles · t)) over the updates, t from 0 to 1, after a linear warm-up: USB and FixMatch.

    ``warmup_share`` of all updates rise linearly from 0, where the very first update is. Raises UserError if a value is
    out of range.
    """

    per: ClassVar[Literal["epoch", "step"]] = "step"

    cycles: Annotated[float, Range(0, 1)] = 7 / 16
    warmup_share: Annotated[float, FRACTION] = 0.0

    def lr_factor(self, epoch: int, epochs: int) -> float:
        """Return the factor of update ``epoch`` of ``epochs``, counted from 1."""
        done, warmup = epoch - 1, round(self.warmup_share * epochs)
        if done < warmup:
            return done / warmup
        return max(0.0, math.cos(math.pi * self.cycles * (done - warmup) / max(1, epochs - warmup)))


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """torch's OneCycleLR with one step per epoch, as in DM-Improves-AT: 1/25 of the peak, the peak, 1/250,000.

    The rate rises for the share ``pct_start`` of training, in [0, 1) (Smith & Topin 2017).
    """

    pct_start: Annotated[float, FRACTION] = 0.025

    def lr_factor(self, epoch: int, epochs: int) -> float:
        return self._cycle(epoch, epochs, low=1 / 25, high=1.0, last=1 / 250_000)

    def momentum(self, epoch: int, epochs: int) -> float:
        """Return the momentum, which OneCycleLR moves against the rate: 0.95 to 0.85 to 0.95."""
        return self._cycle(epoch, epochs, low=0.95, high=0.85, last=0.95)

    def _cycle(self, epoch: int, epochs: int, *, low: float, high: float, last: float) -> float:
        """Interpolate by a cosine from ``low`` to ``high`` at epoch pct_start·E, then to ``last`` at epoch E."""
        peak = max(self.pct_start * epochs, 1.0)  # a rise shorter than one epoch starts at the peak
        rising = epoch <= peak and peak > 1
        done = (epoch - 1) / (peak - 1) if rising else (epoch - peak) / max(epochs - peak, 1)
        # The same cosine serves both halves; only its ends differ.
        begin, end = (low, high) if rising else (high, last)
        return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * done))
