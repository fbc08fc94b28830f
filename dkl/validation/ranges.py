"""Ranges of numeric settings, declared once, in the annotation of a field or argument.

    epochs: Annotated[int, Range(1, 1e6)] = 20

A field's line of documentation contains the text of its range.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; both ends belong to it, except ``low`` if ``above``, ``high`` if ``below``.

    NaN and infinity are outside. ``usual`` are the ends of the values in common use, by which a loss that is not finite
    finds its likely cause. ``scale`` recognizes values on another scale, such as 255 for gray levels.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    usual: tuple[float, float] | None = None
    scale: float | None = None

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return over and under  # every comparison with NaN is false

    def __str__(self) -> str:
        if self.high <= 1:
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"
        low, high = _short(self.low), _short(self.high)
        return f"above {low} and at most {high}" if self.above else f"from {low} to {high}"


def _short(value: float) -> str:
    """``value`` in few characters: 1e6 for a million."""
    exponent = math.log10(value) if value >= 1e5 else 0.5
    return f"1e{exponent:.0f}" if exponent == int(exponent) else f"{value:.15g}"


BATCH = Range(1, 1e6)
CLASSES = Range(1, 1e5)
COUNT = Range(1, 1e9)
DEGREES = Range(0, 180)
DEVICES = Range(1, 10_000)
EPOCHS = Range(0, 1e6)
FRACTION = Range(0, 1, below=True)
LABEL = Range(-(2**15), 2**16 - 1)
MEAN = Range(0, 1, scale=255)
MIXING = Range(0, 1000)
PIXELS = Range(0, 1000)
PRIOR_MOMENTUM = Range(0, 1, above=True)
RATE = Range(0, 1000, usual=(0, 1))
REPEATS = Range(1, 1000)
SCALE = Range(0, 100, above=True)
SEED = Range(0, 2**32 - 1)
SHARE = Range(0, 1)
CROPPED = Range(0, 1, above=True)
SIDE = Range(1, 1e5)
STD = Range(0, 1, above=True, scale=255, usual=(0.01, 1))
STEPS = Range(0, 1e5)
TEMPERATURE = Range(0, 1e4, above=True, usual=(0.1, 1000))
THREADS = Range(1, 1024)
WEIGHT = Range(0, 1e6, usual=(0, 100))
