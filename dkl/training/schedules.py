"""Learning rates as pure functions of the epoch, counted from 1, as a share of the peak."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What schedules may depend on: epochs of linear rise and the share it starts from, shares of training to decay
    after, one-cycle's rise."""

    warmup: int = 0
    start: float | None = None
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    pct_start: float = 0.025


def _warm(epoch: int, shape: Shape, share: float) -> float:
    """``share``, or e/w before epoch w; with a start s, s + (1 − s)(e − 1)/w up to epoch w, as timm warms up."""
    w, start = shape.warmup, shape.start
    if start is None:
        return epoch / w if epoch < w else share
    return start + (1 - start) * (epoch - 1) / w if epoch <= w else share


def cosine(epoch: int, epochs: int, shape: Shape) -> float:
    """½(1 + cos(π(e − w)/(E − w + 1))) from epoch w on, and e/w before: the official IKL code's schedule.

    The first epoch without warm-up is already below the peak, and the last is above zero. With w = 10 of 90 epochs it
    is ImageNet-LT's.
    """
    w = shape.warmup
    return _warm(epoch, shape, 0.5 * (1 + math.cos(math.pi * (epoch - w) / max(epochs - w + 1, 1))))


def cosine_annealing(epoch: int, epochs: int, shape: Shape) -> float:
    """½(1 + cos(π(e − 1)/E)), and e/w before epoch w: the official TRADES code's, torch's CosineAnnealingLR, timm's."""
    return _warm(epoch, shape, 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs)))


def step(epoch: int, epochs: int, shape: Shape) -> float:
    """The peak times ``decay`` for every milestone passed, a share of training; e/w before epoch w."""
    passed = sum(epoch > share * epochs for share in shape.milestones)
    return _warm(epoch, shape, shape.decay**passed)


def constant(epoch: int, epochs: int, shape: Shape) -> float:
    """The peak; e/w before epoch w."""
    return _warm(epoch, shape, 1.0)


def _one_cycle(epoch: int, epochs: int, pct_start: float, low: float, high: float, last: float) -> float:
    """Cosine from ``low`` to ``high`` at epoch pct_start·E, then to ``last`` at epoch E (Smith & Topin 2017)."""
    peak = max(pct_start * epochs, 1.0)  # shorter rises than one epoch start at the peak
    done = (epoch - 1) / (peak - 1) if epoch <= peak and peak > 1 else (epoch - peak) / max(epochs - peak, 1)
    begin, end = (low, high) if epoch <= peak and peak > 1 else (high, last)
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * done))


def one_cycle(epoch: int, epochs: int, shape: Shape) -> float:
    """torch's OneCycleLR stepped once an epoch, as DM-Improves-AT does: from 1/25 to 1 to 1/250,000 of the peak."""
    return _one_cycle(epoch, epochs, shape.pct_start, 1 / 25, 1.0, 1 / 250_000)


def one_cycle_momentum(epoch: int, epochs: int, shape: Shape) -> float:
    """The momentum that OneCycleLR cycles against the rate, whatever the optimiser was given: 0.95 to 0.85 to 0.95."""
    return _one_cycle(epoch, epochs, shape.pct_start, 0.95, 0.85, 0.95)


SCHEDULES: dict[str, Callable[[int, int, Shape], float]] = {
    "cosine": cosine,
    "cosine_annealing": cosine_annealing,
    "step": step,
    "one_cycle": one_cycle,
    "constant": constant,
}
