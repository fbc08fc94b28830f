"""A mean and its spread over training seeds, and the interval of one fraction. Fractions are in [0, 1]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""The standard normal's 97.5 % quantile."""


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


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a ``fraction`` seen among ``n``: the p with |fraction - p| <= z·sqrt(p(1 - p)/n)."""
    shrink = 1 + Z95**2 / n
    centre = (fraction + Z95**2 / (2 * n)) / shrink
    half = Z95 / shrink * math.sqrt(fraction * (1 - fraction) / n + (Z95 / (2 * n)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)
