"""Mean and spread over training seeds, and 95 % confidence intervals. Accuracies are fractions in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dkl.records.wilson import Interval, wilson

_ROUNDING = 1e-12
"""Relative differences below this are rounding errors of equal values."""


@dataclass(frozen=True)
class SeedMean:
    """Mean over training seeds, and their sample standard deviation (None for a single seed)."""

    mean: float
    std: float | None

    @classmethod
    def over(cls, values: Sequence[float]) -> "SeedMean":
        """Compute the mean of ``values``, one per seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)

    def __str__(self) -> str:
        """Return percent, such as ``31.91 ± 0.20``."""
        return percent(self.mean) if self.std is None else f"{percent(self.mean)} ± {percent(self.std)}"


def percent(fraction: float) -> str:
    """Return ``fraction`` in percent with two decimals, as RobustBench writes accuracies."""
    return f"{100 * fraction:.2f}"


def has_spread(values: Sequence[float]) -> bool:
    """Whether ``values`` differ by more than rounding errors, so that they say how much seeds vary."""
    return max(values) - min(values) > _ROUNDING * max(map(abs, values))


def student(values: Sequence[float]) -> Interval | None:
    """Return Student's interval of the mean of k ``values``: mean ± t·s/sqrt(k), with k - 1 degrees of freedom.

    None if they have no spread, such as a single value.
    """
    if not has_spread(values):
        return None
    from scipy import stats  # here, because it takes a second to import

    seeds = SeedMean.over(values)
    assert seeds.std is not None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * seeds.std / math.sqrt(len(values))
    return seeds.mean - half, seeds.mean + half


def accuracy_interval(accuracies: Sequence[float], n: int | None, slack: Sequence[float] = (0.0,)) -> Interval | None:
    """Return the interval of a mean accuracy from one value per seed, each a fraction of ``n`` images.

    Several seeds give Student's interval over seeds, a single seed Wilson's over images. So do seeds of equal accuracy:
    Student's would have no width. It begins lower by the mean ``slack``, how far each accuracy may lie below its value,
    and is cut to [0, 1]. ``n`` is None for accuracies that are no fraction of images: there is none over images then.
    """
    interval = student(accuracies) or (wilson(accuracies[0], n) if n else None)
    return interval and (max(0.0, interval[0] - float(np.mean(slack))), min(1.0, interval[1]))
