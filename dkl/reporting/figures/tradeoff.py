"""Figure 2: clean accuracy against robustness. Stars are the paper's own methods, circles others, diamonds runs here."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from dkl.reporting.figures.style import BLACK, CYCLE, canvas

MARKERS = {"own": "*", "here": "D"}
MEANING = {"*": "the paper's method", "o": "other methods", "D": "runs here"}
SIZES = {"*": 70, "o": 22, "D": 22}
GAP = 4.0
"""Points of room between a marker and its label."""


@dataclass(frozen=True)
class Point:
    """A method at its accuracies in percent; ``group`` gives the colour, ``origin`` the marker.

    ``spread`` are standard deviations over seeds, where there are several.
    """

    label: str
    x: float
    y: float
    group: str
    origin: str | None = None
    spread: tuple[float, float] | None = None

    @property
    def marker(self) -> str:
        """By whose figure it is."""
        return MARKERS.get(self.origin or "", "o")


def tradeoff(points: Sequence[Point], *, title: str, x: str, y: str) -> Figure:
    """Points with their labels, and what colours and markers mean."""
    figure, (axes,) = canvas(3.0)
    groups = list(dict.fromkeys(point.group for point in points))
    colours = dict(zip(groups, CYCLE * (1 + len(groups) // len(CYCLE)), strict=False))
    for point in points:
        marker, colour = point.marker, colours[point.group]
        if point.spread:
            axes.errorbar(point.x, point.y, *reversed(point.spread), color=colour, elinewidth=0.8, zorder=1)
        edge = BLACK if marker == "D" else "white"
        axes.scatter(
            point.x,
            point.y,
            SIZES[marker],
            colour,
            marker,
            edgecolors=edge,
            linewidths=0.6,
            zorder=3,
            label=point.label,
        )
    axes.margins(0.14)
    axes.set(title=title, xlabel=f"{x} (%)", ylabel=f"{y} (%)")
    handles = [Line2D([], [], color=colours[group], marker="s", ls="", ms=4, label=group) for group in groups]
    used = [marker for marker in MEANING if any(point.marker == marker for point in points)]
    handles += [
        Line2D([], [], color="0.35", marker=marker, ls="", ms=7 if marker == "*" else 4, label=MEANING[marker])
        for marker in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.3, columnspacing=1.2)
    _label(figure, axes, points)
    return figure


def _label(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Put each point's label on whichever side overlaps least with markers, other labels and the frame."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the axes stay where the labels were placed for
    dots = [Bbox.from_bounds(*(axes.transData.transform((point.x, point.y)) - 6), 12, 12) for point in points]
    taken, frame = list(dots), axes.get_window_extent(renderer)
    for point in points:
        sides = []
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)):
            text = axes.annotate(
                point.label,
                (point.x, point.y),
                xytext=(GAP * dx, GAP * dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                fontsize=7,
            )
            box = text.get_window_extent(renderer)
            outside = box.width * box.height - _area(box, frame)
            sides.append((outside + sum(_area(box, other) for other in taken), len(sides), text, box))
        _, best, _, box = min(sides, key=lambda side: side[:2])
        taken.append(box)
        for _, number, text, _ in sides:
            if number != best:
                text.remove()


def _area(one: Bbox, other: Bbox) -> float:
    """How much of each other two boxes cover."""
    both = Bbox.intersection(one, other)
    return both.width * both.height if both else 0.0
