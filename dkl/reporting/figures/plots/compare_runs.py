"""The curves of several runs on one figure: one color per run, one line style per metric."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dkl.records import Curves
from dkl.reporting.figures.plots.style import CYCLE, canvas

METRICS = {
    "test_miou": ("test, mean IoU", "-"),
    "average_test_miou": ("test, mean IoU, average of weights", (0, (5, 1))),
    "test_accuracy": ("test", "-"),
    "average_test_accuracy": ("test, average of weights", (0, (5, 1))),
    "robust_accuracy": ("held out, attacked", "--"),
    "adversarial_accuracy": ("training, attacked", ":"),
}
"""Label and line style of each accuracy that is drawn."""


def compared_curves(runs: Mapping[str, Curves]) -> Figure:
    """Plot accuracies in percent, and the loss below, by epoch. ``runs`` are named by their legend entry."""
    figure, (top, bottom) = canvas(3.6, 2, 1, sharex=True, height_ratios=(2, 1))
    colors = dict(zip(runs, CYCLE * (1 + len(runs) // len(CYCLE)), strict=False))
    drawn: list[Line2D] = []
    for metric, (label, style) in METRICS.items():
        for name, curves in runs.items():
            points = [(row["epoch"], 100 * row[metric]) for row in curves if metric in row]
            if points:
                marker = "o" if len(points) == 1 else ""
                top.plot(*zip(*points, strict=True), color=colors[name], ls=style, marker=marker, ms=3)
                if label not in [line.get_label() for line in drawn]:
                    drawn.append(Line2D([], [], color="0.35", ls=style, label=label))
    for name, curves in runs.items():
        points = [(row["epoch"], row["loss"]) for row in curves if "loss" in row]
        bottom.plot(*zip(*points, strict=True), color=colors[name], marker="o" if len(points) == 1 else "", ms=3)
    top.set(ylabel="accuracy (%)")
    bottom.set(xlabel="epoch", ylabel="loss")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    names = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=[*names, *drawn], loc="outside lower center", ncols=1)
    figure.align_ylabels()
    return figure
