"""A mean and its spread over training seeds, and 95 % intervals of fractions and of means. Fractions are in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, and the sample standard deviation where there are at least two."""

    mean: float
    std: float | None

    @classmethod
    def over(cls, values: Sequence[float]) -> "Estimate":
        """The estimate from one value a seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)

    def __str__(self) -> str:
        """In percent, such as ``31.91 ± 0.20``."""
        return percent(self.mean) if self.std is None else f"{percent(self.mean)} ± {percent(self.std)}"


def percent(fraction: float) -> str:
    """``fraction`` in percent with two decimals, as RobustBench writes accuracies."""
    return f"{100 * fraction:.2f}"


def wilson(fraction: float, n: int) -> Interval:
    """Wilson's 95 % interval for a ``fraction`` seen among ``n``: the p with |fraction - p| <= z·sqrt(p(1 - p)/n)."""
    low, high = stats.binomtest(round(fraction * n), n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def student(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two ``values``: mean ± t·s/sqrt(k), with k - 1 degrees."""
    found = Estimate.over(values)
    assert found.std is not None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * found.std / math.sqrt(len(values))
    return found.mean - half, found.mean + half


def around(accuracies: Sequence[float], n: int) -> Interval:
    """95 % interval of ``accuracies``, one a seed: Student's over seeds, in [0, 1]; of one, Wilson's over n images."""
    if len(accuracies) == 1:
        return wilson(accuracies[0], n)
    low, high = student(accuracies)
    return max(0.0, low), min(1.0, high)
