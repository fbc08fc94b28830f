"""Places labels beside their points with the least overlap of other labels, markers and the axes' border."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
"""Directions from a point to its label, in order of preference: right, left, above, below, diagonals."""

CENTER = (0, 0)
"""On the point itself."""


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[str, float, float]],
    *,
    sides: Sequence[tuple[float, float]] = SIDES,
    reach: float = 0.0,
    gap: float = 5.0,
    **style: Any,
) -> None:
    """Write ``labels``, each a text at x and y, to one of ``sides``, at a distance of ``gap`` points.

    ``reach`` is the radius of the markers in points. The layout is fixed from here on, so call this last.
    """
    # Sizes of text are known only after layout; a later layout would move the points again.
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame, size = axes.get_window_extent(renderer), reach * figure.dpi / 72
    centers = [axes.transData.transform((x, y)) for _, x, y in labels]
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y in centers if size]
    for text, x, y in labels:  # greedy: each label avoids the labels before it
        tried: list[tuple[float, Annotation, Bbox]] = []
        for dx, dy in sides:
            label = axes.annotate(
                text,
                (x, y),
                xytext=(gap * dx, gap * dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                **style,
            )
            box = label.get_window_extent(renderer)
            # Area outside the axes counts as overlap with their border.
            outside = box.width * box.height - _shared(box, frame)
            tried.append((outside + sum(_shared(box, other) for other in taken), label, box))
        best = min(tried, key=lambda found: found[0])
        taken.append(best[2])
        for found in tried:
            if found is not best:
                found[1].remove()


def _shared(one: Bbox, other: Bbox) -> float:
    """Return the area of the intersection of two boxes."""
    both = Bbox.intersection(one, other)
    return both.width * both.height if both else 0.0
