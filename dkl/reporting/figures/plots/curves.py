"""Curves: metrics by training epoch, and robustness by radius of the attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dkl.records import Curves
from dkl.reporting.figures.plots.style import BLUE, CYCLE, GREEN, MARKERS, ORANGE, PURPLE, VERMILLION, canvas, set_ticks

ACCURACIES = {
    "natural_accuracy": ("training, natural", BLUE, "--"),
    "adversarial_accuracy": ("training, attacked", VERMILLION, "--"),
    "test_accuracy": ("test, natural", BLUE, "-"),
    "test_miou": ("test, mean IoU", GREEN, "-."),
    "average_test_miou": ("test, mean IoU of averaged weights", GREEN, ":"),
    "average_test_accuracy": ("test, average of weights", GREEN, "-"),
    "robust_accuracy": ("held out, attacked", VERMILLION, "-"),
    "pseudo_label_accuracy": ("pseudo-labels, correct", ORANGE, "-"),
    "mask_rate": ("unlabeled, above threshold", ORANGE, ":"),
}
"""Label, color and line style of each accuracy that is drawn."""


def training_curves(runs: Sequence[Curves], *, title: str) -> Figure:
    """Plot accuracies in percent, and the loss below, by epoch. Several runs are seeds of one row."""
    figure, (top, bottom) = canvas(3.4, 2, 1, sharex=True, height_ratios=(2, 1))
    for metric, (name, color, line) in ACCURACIES.items():
        _draw(top, runs, metric, scale=100, label=name, color=color, ls=line)
    _draw(bottom, runs, "loss", color=PURPLE)
    _draw(bottom, runs, "labeled_loss", label="loss on labeled images", color=PURPLE, ls="--")
    top.set(title=title, ylabel="accuracy (%)")
    bottom.set(xlabel="epoch", ylabel="loss")
    set_ticks(top.yaxis)
    set_ticks(bottom.yaxis, most=6)
    set_ticks(bottom.xaxis, integer=True)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
    figure.align_ylabels()
    return figure


def _draw(axes: Axes, runs: Sequence[Curves], metric: str, *, scale: float = 1, label: str = "", **style: Any) -> None:
    """Draw one line per run through the epochs that measured ``metric``, or a dot for a single epoch."""
    # Thin, transparent lines keep several seeds apart.
    several: dict[str, Any] = {"alpha": 0.6, "lw": 0.8} if len(runs) > 1 else {}
    for run in runs:
        points = [(epoch["epoch"], scale * epoch[metric]) for epoch in run if metric in epoch]
        if points:
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, ms=3, label=label or None, **style, **several)
            label = ""  # one legend entry for all runs


IN_255 = "1/255"
"""The unit of radii that are written as fractions of 255."""


@dataclass(frozen=True)
class Line:
    """Accuracies in percent at ``x``: radii in [0, 1] pixel units, or steps. ``spread`` is the deviation over seeds."""

    label: str
    x: Sequence[float]
    accuracy: Sequence[float]
    published: bool = False
    spread: Sequence[float] | None = None


def robustness_curves(lines: Sequence[Line], *, title: str, unit: str = IN_255) -> Figure:
    """Plot accuracy under an attack by its radius, shown in ``unit``: published values dashed, ours solid.

    Each method has its own color and marker.
    """
    figure, axes = _accuracies(lines, title=title, scale=255 if unit == IN_255 else 1)
    axes.set_xlabel(f"radius of the attack ({unit})")
    axes.set_ylim(bottom=0)
    return figure


def step_curves(lines: Sequence[Line], *, title: str) -> Figure:
    """Plot accuracy under an attack by its number of steps, on a logarithmic axis."""
    figure, axes = _accuracies(lines, title=title)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("steps of the attack")
    axes.set_xticks(sorted({x for line in lines for x in line.x}), minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    return figure


def _accuracies(lines: Sequence[Line], *, title: str, scale: float = 1) -> tuple[Figure, Axes]:
    """Plot each line with its own color and marker, and its spread as bars. ``scale`` multiplies ``x``."""
    figure, (axes,) = canvas(2.6)
    ours = " (ours)" if any(line.published for line in lines) else ""
    labels = list(dict.fromkeys(line.label for line in lines))
    for line in lines:
        place = labels.index(line.label)
        axes.errorbar(
            [scale * x for x in line.x],
            line.accuracy,
            line.spread,
            color=CYCLE[place % len(CYCLE)],
            ls="--" if line.published else "-",
            marker=MARKERS[place % len(MARKERS)],
            mfc="white" if line.published else None,
            ms=4,
            capsize=2,
            label=line.label + (" (published)" if line.published else ours),
        )
    axes.set(title=title, ylabel="accuracy (%)")
    set_ticks(axes.yaxis)
    axes.grid(axis="y", lw=0.3, alpha=0.6)
    axes.set_xticks(sorted({round(scale * x, 6) for line in lines for x in line.x}), minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure, axes
