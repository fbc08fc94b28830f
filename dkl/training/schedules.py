"""Learning rates as pure functions of the epoch, counted from 1, as a share of the peak."""

import math
from collections.abc import Callable


def cosine(epoch: int, epochs: int, warmup: int = 0) -> float:
    """½(1 + cos(π(e − w)/(E − w + 1))) from epoch w on, and e/w before: the official code's ``adjust_learning_rate``.

    The first epoch without warm-up is already below the peak, and the last is above zero.
    """
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup + 1)))


def constant(epoch: int, epochs: int, warmup: int = 0) -> float:
    """The peak, after a linear rise over ``warmup`` epochs."""
    return epoch / warmup if epoch < warmup else 1.0


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"cosine": cosine, "constant": constant}
