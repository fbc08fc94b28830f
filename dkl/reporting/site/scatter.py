"""Clean against robust accuracy of a board's rows as SVG, with the Pareto front: it is read without a script."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dkl.errors import shortened
from dkl.reporting.boards.configuration import ConfigurationRow
from dkl.reporting.boards.entries import ROBUSTBENCH
from dkl.reporting.site.labels import Box, Label, place_labels

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 28, 14, 44
"""Size of the drawing and its margins, in SVG units."""

LABELED = 28
"""Characters of a label; longer names are cut."""

FONT, NARROW_FONT = 12, 20
"""Sizes of names, and of the ranks that a narrow screen shows instead, in SVG units."""

REACH = 25.0
"""Published rows are drawn if both accuracies are at most this many percentage points below the best."""


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
    wide: Label | None = None
    narrow: Label | None = None


@dataclass(frozen=True)
class Tick:
    """A line of the grid at ``at`` in SVG units, with its value in percent."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """The dots, the Pareto front as points of a polyline and as names, the grid, and the published rows left out."""

    dots: list[Dot]
    line: str
    front: list[str]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    outside: int


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point exceeds in one value and reaches in the other, by x."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front[::-1]


def scatter(rows: Sequence[ConfigurationRow]) -> Scatter | None:
    """Place the rows of a board; None without rows. Published rows far below the best are left out."""
    points = {number: _percent(row) for number, row in enumerate(rows)}
    if not points:
        return None
    best = [max(point[axis] for point in points.values()) for axis in (0, 1)]
    near = {
        number: point
        for number, point in points.items()
        if rows[number].source != ROBUSTBENCH
        or all(top - value <= REACH for top, value in zip(best, point, strict=True))
    }
    x_scale, x_ticks = _scale([x for x, _ in near.values()], LEFT, WIDTH - RIGHT)
    y_scale, y_ticks = _scale([y for _, y in near.values()], HEIGHT - BOTTOM, TOP)
    dots = {number: _dot(rows[number], number, x_scale(x), y_scale(y)) for number, (x, y) in near.items()}
    numbers = list(near)
    front = [dots[numbers[i]] for i in pareto_front(list(near.values()))]
    return Scatter(
        # Published rows first, so that ours are drawn over them.
        dots=sorted(_labeled(dots.values(), front), key=lambda dot: dot.kind != "published"),
        line=" ".join(f"{dot.x},{dot.y}" for dot in front),
        front=[rows[dot.row].method for dot in front],
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        outside=len(points) - len(near),
    )


def _dot(row: ConfigurationRow, number: int, x: float, y: float) -> Dot:
    clean, robust = _percent(row)
    title = f"{row.method}: clean {clean:.2f}, robust {robust:.2f} ({row.architecture}, {row.status})"
    label = "" if row.source == ROBUSTBENCH else shortened(row.method, LABELED)
    return Dot(round(x, 1), round(y, 1), number, str(row.rank), _kind(row), title, label)


def _labeled(dots: Iterable[Dot], front: Sequence[Dot]) -> list[Dot]:
    """Place the names and the ranks of the dots that have a name, away from dots and from the line of the front."""
    dots = list(dots)
    frame = Box(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    line = [
        (one.x + share / 20 * (other.x - one.x), one.y + share / 20 * (other.y - one.y))
        for one, other in itertools.pairwise(front)
        for share in range(20)
    ]
    around = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in [*((dot.x, dot.y) for dot in dots), *line]]
    named = [dot for dot in dots if dot.label]
    points = [(dot.x, dot.y) for dot in named]
    wide = place_labels([dot.label for dot in named], points, around, frame, FONT)
    narrow = place_labels([dot.rank for dot in named], points, around, frame, NARROW_FONT)
    placed = [replace(dot, wide=a, narrow=b) for dot, a, b in zip(named, wide, narrow, strict=True)]
    return [*(dot for dot in dots if not dot.label), *placed]


def _percent(row: ConfigurationRow) -> tuple[float, float]:
    return 100 * row.means["clean"].mean, 100 * row.means["robust"].mean


def _kind(row: ConfigurationRow) -> str:
    return "published" if row.source == ROBUSTBENCH else "entry" if row.status == "claimed" else "verified"


def _scale(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[Tick]]:
    """Return what maps percent to SVG units between ``start`` and ``end``, and at most ten round ticks."""
    low, high = min(values), max(values)
    step = next(step for step in (1, 2, 5, 10, 20) if (high - low) / step <= 7)
    first = max(0, step * math.floor((low - 0.2 * step) / step))
    last = min(100, step * math.ceil((high + 0.2 * step) / step))

    def place(value: float) -> float:
        return start + (value - first) / (last - first) * (end - start)

    return place, [Tick(round(place(value), 1), f"{value:g}") for value in range(first, last + 1, step)]
