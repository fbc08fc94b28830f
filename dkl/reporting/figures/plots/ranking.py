"""The rows of one board, best first: one ring per seed, the mean and its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from dkl.reporting.figures.plots.style import BLUE, VERMILLION, canvas, set_ticks
from dkl.reporting.statistics.seeds import Interval


@dataclass(frozen=True)
class Ranked:
    """One row: the accuracy of every seed, and the 95 % interval of their mean, as fractions.

    ``ours`` marks the paper's losses, which have their own color and a bold label.
    """

    label: str
    accuracies: Sequence[float]
    interval: Interval
    ours: bool = False


def ranking(rows: Sequence[Ranked], *, title: str, metric: str) -> Figure:
    """Plot one line per row, the first on top. ``metric`` labels the axis of accuracies, in percent."""
    figure, (axes,) = canvas(0.9 + 0.24 * len(rows))
    for place, row in enumerate(rows):
        color = VERMILLION if row.ours else BLUE
        values = [100 * accuracy for accuracy in row.accuracies]
        axes.plot([100 * bound for bound in row.interval], [place, place], color=color, lw=1.2)
        axes.plot(values, [place] * len(values), "o", ms=4, mfc="none", color=color)
        axes.plot([sum(values) / len(values)], [place], "D", ms=4, color=color)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    # Over the whole figure: long labels leave the axes too narrow for it.
    figure.suptitle(title, fontsize=8)
    axes.set(xlabel=f"{metric} (%)", ylim=(len(rows) - 0.5, -0.5))
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.ours else "normal")
    set_ticks(axes.xaxis)
    axes.grid(axis="x", lw=0.3, alpha=0.6)
    return figure
