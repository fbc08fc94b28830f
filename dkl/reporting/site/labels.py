"""Places labels beside the points of a drawing, so that they cover neither points nor each other if there is room."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH_OF_LETTER, HEIGHT = 0.58, 1.2
"""Size of a letter and of a line, in font sizes."""

STEPS, DIRECTIONS = 12, 16
"""Distances and directions from a point in which a place for its label is searched."""


class Box(NamedTuple):
    """A rectangle in SVG units."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that both rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Label:
    """The middle of a label's baseline, and the end of the line to its point; None if the label is beside it."""

    x: float
    y: float
    line: tuple[float, float] | None


def place_labels(
    texts: Sequence[str], points: Sequence[tuple[float, float]], obstacles: Sequence[Box], frame: Box, font: float
) -> list[Label]:
    """Place ``texts[i]`` near ``points[i]``, one after another, inside ``frame`` and away from ``obstacles``.

    Of all places around a point the one that covers the least is taken, then the nearest.
    """
    taken = list(obstacles)
    labels = []
    for text, (x, y) in zip(texts, points, strict=True):
        width, height = WIDTH_OF_LETTER * font * len(text), HEIGHT * font
        places = [_beside(x, y, width, height, step, turn) for step in range(STEPS) for turn in range(DIRECTIONS)]
        inside = [box for box in places if box.overlap(frame) > 0.999 * width * height] or places
        best = min(inside, key=lambda box: round(sum(box.overlap(other) for other in taken), 3))  # the first of equals
        taken.append(best)
        middle = (best.left + best.right) / 2
        # The point of the label that is nearest to its dot.
        end = (min(max(x, best.left), best.right), min(max(y, best.top), best.bottom))
        far = math.dist(end, (x, y)) > height
        labels.append(Label(round(middle, 1), round(best.bottom - 0.3 * font, 1), end if far else None))
    return labels


def _beside(x: float, y: float, width: float, height: float, step: int, turn: int) -> Box:
    """The box of a label whose edge is 8 units and ``step`` lines from a point, in direction ``turn``."""
    angle = 2 * math.pi * turn / DIRECTIONS
    reach = 8 + step * height
    across, down = math.cos(angle), math.sin(angle)
    middle, center = x + across * (reach + width / 2), y + down * (reach + height / 2)
    return Box(middle - width / 2, center - height / 2, middle + width / 2, center + height / 2)
