"""Ranges of durations, and durations as text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

UNITS = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Span:
    """A range between two positive numbers, such as seconds."""

    low: float
    high: float

    def __add__(self, other: "Span") -> "Span":
        """Add the ends of another range."""
        return Span(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Span":
        """Multiply both ends by a number."""
        return Span(self.low * factor, self.high * factor)

    @property
    def middle(self) -> float:
        """The geometric mean of the ends."""
        return math.sqrt(self.low * self.high)

    def __str__(self) -> str:
        """``about 5 min`` if the ends differ by at most a factor of two, otherwise ``2 to 10 min``."""
        if self.high <= 2 * self.low:
            return f"about {duration(self.middle)}"
        low, high = duration(self.low), duration(self.high)
        number, _, unit = low.partition(" ")
        if low == high:
            return f"about {high}"
        return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


NONE = Span(0, 0)
"""The sum of no ranges."""


def total(spans: Iterable[Span]) -> Span:
    """Return the sum of ``spans``."""
    return sum(spans, NONE)


def duration(seconds: float) -> str:
    """``seconds`` as text, in the largest unit of which there are at least two."""
    unit, length = next((pair for pair in UNITS if seconds >= 2 * pair[1]), UNITS[-1])
    return f"{max(seconds / length, 1):.0f} {unit}"
