"""The look of all figures: column width, fonts of at least seven points, colors safe for color-blind readers, labels.

Figures are matplotlib ``Figure`` objects without pyplot, drawn inside a local style, so that global settings stay as
they are. The same drawing gives the same bytes.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from dkl.manifests import Manifest
from dkl.storage.files import write_atomically

Drawing = tuple[str, Callable[[], Figure]]
"""A file name without extension, and the function that draws the figure."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""The palette of Okabe and Ito."""

GRAY = "#808080"
"""Readable on white and on a dark page."""

CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Colors in the order of their use. Yellow is left out: it is too pale on white."""

METHODS = {
    "BA": SKY,
    "WEAKER": ORANGE,
    "GKL": PURPLE,
    "IKL": VERMILLION,
    "DKL": GREEN,
    "DKD": ORANGE,
    "DIST": SKY,
    "JSD": GREEN,
    "SOFT": SKY,
    "MSE": GREEN,
    **dict.fromkeys(("KL", "TRADES", "KD", "HARD"), BLUE),
    **dict.fromkeys(("PGD", "ALONE", "TEACHER"), GRAY),
}
"""The color of a method on all figures and pages, by the first of these words in its name; orange without any."""

DASHES = ("-", "--", ":", "-.", (0, (9, 3)), (0, (1, 4)))
"""Line styles of lines that share the color of their method."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes in the order of their use, beside the colors: nothing depends on color alone."""

WIDTH = 3.3
"""Width of a column of a two-column paper, in inches."""

WIDE = 6.8
"""Width of both columns, in inches."""

TITLE_WIDTH = 46
"""Characters of a title that fit into a column."""

RINGS, DIRECTIONS, STEP = 16, 24, 4.0
"""Distances that are tried for the center of a label, directions of each, and points (1/72 inch) between distances."""

LEAD = 8.0
"""Labels that are farther than this from their position, in points, get a thin line to it."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "dkl",
}

FORMATS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""File extensions, and the metadata to remove because it changes from day to day or version to version."""


def title_of(*parts: str, wide: bool = False) -> str:
    """Join ``parts`` by commas, in lines that fit into one column or both, and end at commas if their parts fit."""
    width = 2 * TITLE_WIDTH if wide else TITLE_WIDTH
    # Spaces inside a part do not break, so that lines end at commas.
    kept = (part if len(part) > width else part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)
    return fill(", ".join(kept), width).replace("\N{NO-BREAK SPACE}", " ")


def method_color(method: str) -> str:
    """Return the color of a method, by its name."""
    words = re.findall("[A-Z]+", method.upper())
    return next((color for word, color in METHODS.items() if word in words), ORANGE)


def line_looks(methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return the look of a line per method: its color, and dashes if a line before it has the same color."""
    colors = list(map(method_color, methods))
    dashes = (colors[:place].count(color) for place, color in enumerate(colors))
    return [{"color": color, "ls": DASHES[dash % len(DASHES)]} for color, dash in zip(colors, dashes, strict=True)]


def seed_text(seed: int | None) -> str:
    """Return ``seed N``, or nothing for weights trained elsewhere."""
    return "" if seed is None else f"seed {seed}"


def file_name(manifest: Manifest, part: str, budget: str) -> str:
    """Return the file name of a ``part`` of a manifest's figure, which ends in the budget unless it is ``paper``."""
    name = manifest.name + part if manifest.kind else f"features-{manifest.name}-{part}"
    return name + ("" if budget == "paper" else f"-{budget}")


def canvas(
    height: float, rows: int = 1, columns: int = 1, wide: bool = False, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """Create a figure of ``height`` inches, as wide as one column or both. Returns it and its axes row by row."""
    # pyplot would keep every figure alive and depend on the display backend.
    figure = Figure(figsize=(WIDE if wide else WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)


def set_ticks(*scales: Axis, integer: bool = False, most: int = 9) -> None:
    """Give each axis round ticks, at most ``most`` intervals; only whole numbers if ``integer``."""
    for scale in scales:
        locator = MaxNLocator(nbins=most, min_n_ticks=most // 2 + 1, steps=[1, 2, 5, 10], integer=integer)
        scale.set_major_locator(locator)


def place_labels(
    axes: Axes, labels: Sequence[tuple[str, float, float]], points: ArrayLike, *, reach: float, **style: Any
) -> list[list[Artist]]:
    """Write ``labels``, each a text at x and y, close to their positions; return each, with the line to it if far.

    They avoid ``points[N, 2]``, markers of radius ``reach`` points, as in ``place_boxes``. The layout is fixed from
    here on, so call this last.
    """
    # Sizes of text are known only after layout; a later layout would move the points again.
    figure = axes.figure
    assert isinstance(figure, Figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    written = [axes.annotate(text, (x, y), ha="center", va="center", **style) for text, x, y in labels]
    halves = [np.array(label.get_window_extent(renderer).size) / 2 for label in written]
    positions = [axes.transData.transform(place) for _, *place in labels]
    pixels = axes.transData.transform(np.asarray(points, dtype=float))
    frame, point = axes.get_window_extent(renderer), figure.dpi / 72
    centers, gaps = place_boxes(halves, positions, pixels, (frame.min, frame.max), reach=reach, unit=point)
    drawn: list[list[Artist]] = [[label] for label in written]
    for label, artists, half, position, center, gap in zip(
        written, drawn, halves, positions, centers, gaps, strict=True
    ):
        label.set_position(tuple(axes.transData.inverted().transform(center)))
        if gap > LEAD * point:
            end = axes.transData.inverted().transform(np.clip(position, center - half, center + half))
            line = Line2D(*zip(label.xy, end, strict=True), color="0.35", lw=0.4, zorder=0.5)
            artists.append(axes.add_line(line))
    return drawn


def place_boxes(
    halves: Sequence[NDArray[Any]],
    positions: Sequence[NDArray[Any]],
    points: NDArray[Any],
    frame: Sequence[ArrayLike],
    *,
    reach: float,
    unit: float,
) -> tuple[NDArray[Any], list[float]]:
    """Return the centers of boxes of half sizes ``halves`` close to their ``positions``, and their distances to them.

    They do not cover ``points[N, 2]`` of radius ``reach``, nor each other, and stay inside the ``frame``, its lowest
    and highest corner; if there is no such place, the one that covers the least is taken. ``unit`` scales distances.
    """
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    rings = STEP * unit * np.arange(RINGS)[:, None, None]
    offsets = (rings * np.stack([np.cos(angles), np.sin(angles)], axis=1)).reshape(-1, 2)

    def within(places: NDArray[Any], centers: NDArray[Any], reach: NDArray[Any] | float) -> NDArray[np.int64]:
        """Return for each of ``centers[K, 2]`` how many ``places[N, 2]`` are within ``reach`` of it along both axes."""
        return (np.abs(places - centers[:, None]) < reach).all(axis=-1).sum(axis=1)

    taken, distances = np.empty((0, 2, 2)), []  # center and half size of each box
    for half, position in zip(halves, positions, strict=True):  # greedy: each box avoids the boxes before it
        centers = position + offsets
        gaps = np.hypot(*np.maximum(np.abs(offsets) - half, 0).T)
        covered = 1e-6 * gaps + within(points, centers, half + reach * unit)
        covered += 1000 * within(taken[:, 0], centers, half + unit + taken[:, 1])
        covered += 1000 * ((centers - half < frame[0]) | (centers + half > frame[1])).any(axis=1)
        nearest = covered.argmin()  # of those that cover the least
        taken = np.concatenate([taken, [[centers[nearest], half]]])
        distances.append(float(gaps[nearest]))
    return taken[:, 0], distances


def save(draw: Callable[[], Figure], stem: Path) -> list[Path]:
    """Write the figure that ``draw`` returns as ``<stem>.png`` and ``<stem>.svg``, atomically. Returns both paths."""
    written = []
    with rc_context(STYLE):
        figure = draw()
        title = " ".join((figure.get_suptitle() or figure.axes[0].get_title()).split())
        for extension, metadata in FORMATS.items():
            path = stem.with_name(f"{stem.name}.{extension}")
            options: dict[str, Any] = {"format": extension, "dpi": 300, "metadata": {**metadata, "Title": title}}
            write_atomically(path, partial(figure.savefig, **options))
            written.append(path)
    return written


def inline(draw: Callable[[], Figure], prefix: str) -> str:
    """Return the figure that ``draw`` returns as SVG for a page, all of whose ids begin with ``prefix``."""
    with rc_context(STYLE), StringIO() as file:
        draw().savefig(file, format="svg", metadata=FORMATS["svg"])
        svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", file.getvalue(), flags=re.DOTALL)
    return re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{prefix}-", svg[svg.index("<svg") :])
