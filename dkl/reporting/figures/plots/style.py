"""The look of all figures: column width, fonts of at least seven points, and colors safe for color-blind readers.

Figures are matplotlib ``Figure`` objects without pyplot, drawn inside a local style, so that global settings stay as
they are. The same drawing gives the same bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dkl.storage.files import write_atomically

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""The palette of Okabe and Ito."""

CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Colors in the order of their use. Yellow is left out: it is too pale on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Shapes in the order of their use, beside the colors: nothing depends on color alone."""

WIDTH = 3.3
"""Width of a column of a two-column paper, in inches."""

WIDE = 6.8
"""Width of both columns, in inches."""

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


def canvas(
    height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """Create a figure of ``height`` and ``width`` inches. Returns it and its axes row by row."""
    # pyplot would keep every figure alive and depend on the display backend.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)


def set_ticks(*scales: Axis, integer: bool = False, most: int = 9) -> None:
    """Give each axis round ticks, at most ``most`` intervals; only whole numbers if ``integer``."""
    for scale in scales:
        locator = MaxNLocator(nbins=most, min_n_ticks=most // 2 + 1, steps=[1, 2, 5, 10], integer=integer)
        scale.set_major_locator(locator)


def save(draw: Callable[[], Figure], stem: Path) -> list[Path]:
    """Write the figure that ``draw`` returns as ``<stem>.png`` and ``<stem>.svg``, atomically. Returns both paths."""
    written = []
    with rc_context(STYLE):
        figure = draw()
        for extension, metadata in FORMATS.items():
            path = stem.with_name(f"{stem.name}.{extension}")
            # The function is called at once, so it sees this round's extension and metadata.
            write_atomically(path, lambda file: figure.savefig(file, format=extension, dpi=300, metadata=metadata))  # noqa: B023
            written.append(path)
    return written
