"""Places labels beside points or groups of points, where they cover neither points nor other labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

RINGS, DIRECTIONS, STEP = 16, 24, 4.0
"""Distances that are tried for the center of a label, directions of each, and points (1/72 inch) between distances."""

LEAD = 8.0
"""Labels that are farther than this from their position, in points, get a thin line to it."""


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[str, float, float]],
    points: ArrayLike,
    *,
    reach: float,
    **style: Any,
) -> None:
    """Write ``labels``, each a text at x and y, close to their positions.

    They do not cover ``points[N, 2]``, markers of radius ``reach`` points, nor each other, and stay inside the axes; if
    there is no such place within reach, the one that covers the least is taken. The layout is fixed from here on, so
    call this last.
    """
    # Sizes of text are known only after layout; a later layout would move the points again.
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame, point = axes.get_window_extent(renderer), figure.dpi / 72
    pixels = axes.transData.transform(np.asarray(points, dtype=float))
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    rings = STEP * point * np.arange(RINGS)[:, None, None]
    offsets = (rings * np.stack([np.cos(angles), np.sin(angles)], axis=1)).reshape(-1, 2)
    taken = np.empty((0, 2, 2))  # center and half size of each label
    for text, x, y in labels:  # greedy: each label avoids the labels before it
        label = axes.annotate(text, (x, y), ha="center", va="center", **style)
        half, position = np.array(label.get_window_extent(renderer).size) / 2, axes.transData.transform((x, y))
        centers = position + offsets
        gaps = np.hypot(*np.maximum(np.abs(offsets) - half, 0).T)
        covered = 1e-6 * gaps + _within(pixels, centers, half + reach * point)
        covered += 1000 * _within(taken[:, 0], centers, half + point + taken[:, 1])
        covered += 1000 * ((centers - half < frame.min) | (centers + half > frame.max)).any(axis=1)
        nearest = covered.argmin()  # of those that cover the least
        best = centers[nearest]
        taken = np.concatenate([taken, [[best, half]]])
        label.set_position(tuple(axes.transData.inverted().transform(best)))
        if gaps[nearest] > LEAD * point:
            end = axes.transData.inverted().transform(np.clip(position, best - half, best + half))
            axes.add_line(Line2D(*zip((x, y), end, strict=True), color="0.35", lw=0.4, zorder=0.5))


def _within(found: NDArray[Any], centers: NDArray[Any], reach: NDArray[Any] | float) -> NDArray[np.int64]:
    """Return for each of ``centers[K, 2]`` how many of ``found[N, 2]`` are within ``reach`` of it along both axes."""
    return (np.abs(found - centers[:, None]) < reach).all(axis=-1).sum(axis=1)
