"""Clean against robust accuracy of a board's rows as SVG, with the Pareto front: it is read without a script.

Names are beside their dots, so that they cover neither dots nor each other if there is room.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkl.errors import shortened
from dkl.reporting.boards.entries import ROBUSTBENCH
from dkl.reporting.boards.leaderboards import ConfigurationRow
from dkl.reporting.figures.style import place_boxes

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 28, 14, 44
"""Size of the drawing and its margins, in SVG units."""

LABELED = 28
"""Characters of a label; longer names are cut."""

FONT, NARROW_FONT = 12, 20
"""Sizes of names, and of the ranks that a narrow screen shows instead, in SVG units."""

LETTER, LINE = 0.58, 1.2
"""Width of a letter and height of a line, in font sizes."""

REACH = 25.0
"""Published rows are drawn if both accuracies are at most this many percentage points below the best."""

Place = tuple[float, float]
"""A place in SVG units, or clean and robust accuracy in percent."""


@dataclass(frozen=True)
class Label:
    """The middle of a label's baseline, and the end of the line to its point; None if the label is beside it."""

    x: float
    y: float
    line: Place | None


@dataclass(frozen=True)
class Dot:
    """A row of the board: its place, its number in the table, its rank, its look, its description, and a name.

    Published rows have no name. ``wide`` is the place of the name. Narrow screens show the rank instead, at ``narrow``.
    """

    x: float
    y: float
    row: int
    rank: str
    kind: str
    title: str
    label: str
    wide: Label | None
    narrow: Label | None


@dataclass(frozen=True)
class Scatter:
    """The dots, the Pareto front as points of a polyline, the grid, and the number of published rows left out.

    A line of the grid is a place along its axis in SVG units, and a value in percent.
    """

    dots: list[Dot]
    front: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    outside: int


def pareto_front(points: Sequence[Place]) -> list[int]:
    """Return the indices of the points that no other point exceeds in one value and reaches in the other, by x."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front[::-1]


def scatter(rows: Sequence[ConfigurationRow]) -> Scatter | None:
    """Place the rows of a board; None without rows. Published rows far below the best are left out."""
    if not rows:
        return None
    points = [(100 * row.means["clean"].mean, 100 * row.means["robust"].mean) for row in rows]
    best = [max(values) for values in zip(*points, strict=True)]
    named = [number for number, row in enumerate(rows) if row.source != ROBUSTBENCH]
    near = [i for i, (x, y) in enumerate(points) if i in named or (best[0] - x <= REACH and best[1] - y <= REACH)]
    x_place, x_ticks = _scale([points[i][0] for i in near], LEFT, WIDTH - RIGHT)
    y_place, y_ticks = _scale([points[i][1] for i in near], HEIGHT - BOTTOM, TOP)
    places = {i: (round(x_place(points[i][0]), 1), round(y_place(points[i][1]), 1)) for i in near}
    front = [near[i] for i in pareto_front([points[i] for i in near])]
    line = [
        (x + share / 20 * (next_x - x), y + share / 20 * (next_y - y))
        for (x, y), (next_x, next_y) in itertools.pairwise(places[i] for i in front)
        for share in range(20)
    ]
    around = np.array([*places.values(), *line])
    names = {i: shortened(rows[i].method, LABELED) for i in named}
    at = [places[i] for i in named]
    wide = dict(zip(named, _labels(list(names.values()), at, around, FONT), strict=True))
    narrow = dict(zip(named, _labels([str(rows[i].rank) for i in named], at, around, NARROW_FONT), strict=True))

    def dot(i: int) -> Dot:
        row, (clean, robust) = rows[i], points[i]
        kind = "published" if i not in names else "entry" if row.status == "claimed" else "verified"
        title = f"{row.method}: clean {clean:.2f}, robust {robust:.2f} ({row.architecture}, {row.status})"
        return Dot(*places[i], i, str(row.rank), kind, title, names.get(i, ""), wide.get(i), narrow.get(i))

    return Scatter(
        # Published rows first, so that ours are drawn over them.
        dots=[dot(i) for i in [*(i for i in near if i not in names), *named]],
        front=" ".join(f"{x},{y}" for x, y in (places[i] for i in front)),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        outside=len(points) - len(near),
    )


def _scale(
    values: Sequence[float], start: float, end: float
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Return what maps percent to SVG units between ``start`` and ``end``, and at most ten round ticks."""
    low, high = min(values), max(values)
    step = next(step for step in (1, 2, 5, 10, 20) if (high - low) / step <= 7)
    first = max(0, step * math.floor((low - 0.2 * step) / step))
    last = min(100, step * math.ceil((high + 0.2 * step) / step))

    def place(value: float) -> float:
        return start + (value - first) / (last - first) * (end - start)

    return place, [(round(place(value), 1), f"{value:g}") for value in range(first, last + 1, step)]


def _labels(texts: Sequence[str], points: Sequence[Place], covered: NDArray[Any], font: float) -> list[Label]:
    """Place ``texts`` near ``points`` away from the places ``covered[N, 2]``, each with a line to its point if far."""
    halves = [np.array([LETTER * font * len(text), LINE * font]) / 2 for text in texts]
    frame = ((LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM))
    centers, gaps = place_boxes(halves, [np.array(point) for point in points], covered, frame, reach=2, unit=3)
    labels = []
    for point, half, center, gap in zip(points, halves, centers, gaps, strict=True):
        end = np.clip(point, center - half, center + half).tolist()  # the point of the label nearest to its dot
        x, bottom = round(float(center[0]), 1), float(center[1] + half[1])
        labels.append(Label(x, round(bottom - 0.3 * font, 1), tuple(end) if gap > LINE * font else None))
    return labels
