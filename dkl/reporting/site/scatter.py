"""Clean against robust accuracy of a board's rows as SVG, with the Pareto front: it is read without a script."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dkl.reporting.boards.configuration import ConfigurationRow
from dkl.reporting.boards.entries import ROBUSTBENCH

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 44
"""Size of the drawing and its margins, in SVG units."""

LABELED = 22
"""Characters of a label; longer names are cut."""


@dataclass(frozen=True)
class Dot:
    """A row of the board: its place, its number in the table, its look, its description, and a label on the front."""

    x: float
    y: float
    row: int
    kind: str
    title: str
    label: str


@dataclass(frozen=True)
class Tick:
    """A line of the grid at ``at`` in SVG units, with its value in percent."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """The dots, the Pareto front as points of a polyline, and the grid."""

    dots: list[Dot]
    front: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point exceeds in one value and reaches in the other, by x."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front[::-1]


def scatter(rows: Sequence[ConfigurationRow]) -> Scatter | None:
    """Place the rows of a board; None without rows."""
    points = [(100 * row.means["clean"].mean, 100 * row.means["robust"].mean) for row in rows]
    if not points:
        return None
    x_scale, x_ticks = _scale([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_scale, y_ticks = _scale([y for _, y in points], HEIGHT - BOTTOM, TOP)
    front = pareto_front(points)
    dots = [
        Dot(
            round(x_scale(x), 1),
            round(y_scale(y), 1),
            number,
            _kind(row),
            f"{row.method}: clean {x:.2f}, robust {y:.2f} ({row.architecture}, {row.status})",
            row.method if len(row.method) <= LABELED else f"{row.method[: LABELED - 1]}…",
        )
        for number, (row, (x, y)) in enumerate(zip(rows, points, strict=True))
    ]
    line = " ".join(f"{dots[i].x},{dots[i].y}" for i in front)
    unlabeled = [dot if i in front else replace(dot, label="") for i, dot in enumerate(dots)]
    # Published rows first, so that ours are drawn over them.
    return Scatter(sorted(unlabeled, key=lambda dot: dot.kind != "published"), line, x_ticks, y_ticks)


def _kind(row: ConfigurationRow) -> str:
    return "published" if row.source == ROBUSTBENCH else "entry" if row.status == "claimed" else "verified"


def _scale(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[Tick]]:
    """Return what maps percent to SVG units between ``start`` and ``end``, and at most nine round ticks."""
    low, high = min(values), max(values)
    step = next(step for step in (1, 2, 5, 10, 20) if (high - low) / step <= 7)
    first, last = step * math.floor((low - 0.2 * step) / step), step * math.ceil((high + 0.2 * step) / step)

    def place(value: float) -> float:
        return start + (value - first) / (last - first) * (end - start)

    return place, [Tick(round(place(value), 1), f"{value:g}") for value in range(first, last + 1, step)]
