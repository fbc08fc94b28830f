"""Figure 2: clean against robust accuracy. Shape and color give the group of a method, the filling its origin."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkl.reporting.figures.plots.label_placement import place_labels
from dkl.reporting.figures.plots.style import CYCLE, MARKERS, canvas, set_ticks

FILLING = {
    "own": ("the paper's method", lambda color: {"color": color, "mfc": color, "mec": color}),
    "here": ("our runs", lambda color: {"color": color, "mfc": color, "mec": "black"}),
    "other": ("other methods", lambda color: {"color": color, "mfc": "white", "mec": color}),
}
"""By origin: its entry in the legend, and face and edge of its markers in a color. Others have origin ``other``."""

SIZE = 5.5
"""Diameter of a marker in points (1/72 inch)."""


@dataclass(frozen=True)
class Point:
    """A method at its accuracies in percent. ``group`` gives shape and color, ``origin`` the filling.

    ``spread`` are the standard deviations of x and y over seeds, None for a single seed.
    """

    label: str
    x: float
    y: float
    group: str
    origin: str | None = None
    spread: tuple[float, float] | None = None

    @property
    def filling(self) -> str:
        """The key in ``FILLING`` of the origin."""
        return self.origin if self.origin in FILLING else "other"


def tradeoff(points: Sequence[Point], *, title: str, x: str, y: str) -> Figure:
    """Plot labeled points, and a legend of groups and origins.

    Methods that occur in several groups have the group in their label, so that no label depends on its color.
    """
    figure, (axes,) = canvas(3.3)
    groups = list(dict.fromkeys(point.group for point in points))
    looks = {group: (CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i, group in enumerate(groups)}
    base: dict[str, Any] = {"ls": "", "ms": SIZE, "mew": 1.0}
    for point in points:
        color, marker = looks[point.group]
        if point.spread:
            across, up = point.spread
            axes.errorbar(point.x, point.y, xerr=across, yerr=up, color=color, elinewidth=0.8, zorder=1)
        style = base | {"marker": marker, "zorder": 3} | FILLING[point.filling][1](color)
        axes.plot([point.x], [point.y], label=point.label, **style)
    # Room for labels at the border.
    axes.margins(0.16)
    axes.set(title=title, xlabel=f"{x} (%)", ylabel=f"{y} (%)")
    set_ticks(axes.xaxis, axes.yaxis)
    handles = [
        Line2D([], [], color=color, marker=marker, label=group, **base) for group, (color, marker) in looks.items()
    ]
    origins = {point.filling for point in points}
    handles += [
        Line2D([], [], marker="o", label=text, **base | look("0.35"))
        for key, (text, look) in FILLING.items()
        if key in origins and len(origins) > 1
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.3, columnspacing=1.2)
    labels = [(label, point.x, point.y) for label, point in zip(_labels(points), points, strict=True)]
    covered = [place for point in points for place in _covered(point)]
    place_labels(figure, axes, labels, covered, reach=SIZE / 2 + 1, fontsize=7)
    return figure


def _covered(point: Point) -> list[tuple[float, float]]:
    """Return places on the marker and the bars of ``point``, which labels avoid."""
    across, up = point.spread or (0.0, 0.0)
    steps = [step / 10 for step in range(-10, 11)] if point.spread else [0.0]
    return [(point.x + step * dx, point.y + step * dy) for step in steps for dx, dy in ((across, 0.0), (0.0, up))]


def _labels(points: Sequence[Point]) -> list[str]:
    """Return each point's label, with its group if the label occurs in several groups."""
    groups = Counter(label for label, _ in {(point.label, point.group) for point in points})
    return [f"{point.label} ({point.group})" if groups[point.label] > 1 else point.label for point in points]
