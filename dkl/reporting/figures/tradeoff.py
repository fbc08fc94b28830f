"""Figure 2: clean against robust accuracy. Stars are the paper's method, dots other methods, diamonds our runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkl.reporting.figures.label_placement import place_labels
from dkl.reporting.figures.style import CYCLE, canvas

MARKERS = {"own": "*", "here": "D"}
MEANING = {"*": "the paper's method", "o": "other methods", "D": "our runs"}
SIZES = {"*": 70, "o": 22, "D": 22}
HOLLOW = {"D": "none"}  # published points stay visible below
REACH = 4.3
"""Radius of the largest marker, in points (1/72 inch)."""


@dataclass(frozen=True)
class Point:
    """A method at its accuracies in percent. ``group`` gives the color, ``origin`` the marker.

    ``spread`` are the standard deviations of x and y over seeds, None for a single seed.
    """

    label: str
    x: float
    y: float
    group: str
    origin: str | None = None
    spread: tuple[float, float] | None = None

    @property
    def marker(self) -> str:
        """The marker, by the origin of the values."""
        return MARKERS.get(self.origin or "", "o")


def tradeoff(points: Sequence[Point], *, title: str, x: str, y: str) -> Figure:
    """Plot labeled points, and a legend of colors and markers."""
    figure, (axes,) = canvas(3.0)
    groups = list(dict.fromkeys(point.group for point in points))
    colors = dict(zip(groups, CYCLE * (1 + len(groups) // len(CYCLE)), strict=False))
    for point in points:
        marker, color = point.marker, colors[point.group]
        if point.spread:
            across, up = point.spread
            axes.errorbar(point.x, point.y, xerr=across, yerr=up, color=color, elinewidth=0.8, zorder=1)
        face, edge, width = ("none", color, 1.0) if marker in HOLLOW else (color, "white", 0.6)
        style: dict[str, Any] = {"facecolors": face, "edgecolors": edge, "linewidths": width, "zorder": 3}
        axes.scatter(point.x, point.y, s=SIZES[marker], marker=marker, label=point.label, **style)
    # Room for labels at the border.
    axes.margins(0.14)
    axes.set(title=title, xlabel=f"{x} (%)", ylabel=f"{y} (%)")
    handles = [Line2D([], [], color=colors[group], marker="s", ls="", ms=4, label=group) for group in groups]
    handles += [
        Line2D([], [], color="0.35", mfc=HOLLOW.get(key), marker=key, ls="", ms=SIZES[key] ** 0.5, label=MEANING[key])
        for key in MEANING
        if any(point.marker == key for point in points)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.3, columnspacing=1.2)
    place_labels(figure, axes, [(point.label, point.x, point.y) for point in points], reach=REACH, fontsize=7)
    return figure
