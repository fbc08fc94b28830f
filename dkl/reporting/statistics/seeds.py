"""Mean and spread over training seeds, and 95 % confidence intervals. Accuracies are fractions in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dkl.records.wilson import Interval, wilson


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


def student(values: Sequence[float]) -> Interval:
    """Return Student's interval of the mean of k >= 2 ``values``: mean ± t·s/sqrt(k), with k - 1 degrees of freedom."""
    from scipy import stats  # here, because it takes a second to import

    seeds = SeedMean.over(values)
    assert seeds.std is not None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * seeds.std / math.sqrt(len(values))
    return seeds.mean - half, seeds.mean + half


def accuracy_interval(accuracies: Sequence[float], n: int, slack: Sequence[float] = (0.0,)) -> Interval:
    """Return the interval of a mean accuracy from one value per seed, each on ``n`` images.

    Several seeds give Student's interval over seeds, a single seed Wilson's over images. It begins lower by the mean
    ``slack``, how far each accuracy may lie below its value, and is cut to [0, 1].
    """
    low, high = wilson(accuracies[0], n) if len(accuracies) == 1 else student(accuracies)
    return max(0.0, low - float(np.mean(slack))), min(1.0, high)
