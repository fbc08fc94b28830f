"""How every figure looks: column width, fonts of at least seven points, colours that the colour-blind tell apart.

Figures are matplotlib ``Figure`` objects, made and written without pyplot and inside a style of their own, so that no
global setting changes. The same drawing gives the same bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dkl.files import write_atomically

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""Okabe and Ito's colours."""

CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""In the order they are used; yellow is too pale on white."""

WIDTH = 3.3
"""A column of a two-column paper, in inches."""

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
"""Endings, and the metadata that would differ from one day or version to the next."""


def canvas(height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A figure of column width and ``height`` inches, and its axes row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)


def save(draw: Callable[[], Figure], stem: Path) -> list[Path]:
    """Write what ``draw`` draws as ``<stem>.png`` and ``<stem>.svg``, atomically; returns both paths."""
    written = []
    with rc_context(STYLE):
        figure = draw()
        for ending, metadata in FORMATS.items():
            path = stem.with_name(f"{stem.name}.{ending}")
            write_atomically(path, lambda file: figure.savefig(file, format=ending, dpi=300, metadata=metadata))  # noqa: B023
            written.append(path)
    return written
