"""Training dynamics of an experiment: one panel per quantity, one line per method, bands over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dkl.records import Curves
from dkl.reporting.figures.plots.style import CYCLE, WIDE, canvas, set_ticks


@dataclass(frozen=True)
class Panel:
    """The first of ``metrics`` that a run measured, times ``scale``, under ``title``."""

    title: str
    metrics: tuple[str, ...]
    scale: float = 100


ACCURACY = Panel("test accuracy (%)", ("average_test_accuracy", "test_accuracy"))

MEAN_IOU = Panel("mean IoU (%)", ("average_test_miou", "test_miou"))

PANELS = (
    ACCURACY,
    MEAN_IOU,
    Panel("robust accuracy, held out (%)", ("robust_accuracy",)),
    Panel("robust accuracy, training (%)", ("adversarial_accuracy",)),
    Panel("gradient norm of the wMSE", ("wmse_gradient",), 1),
    Panel("gradient norm of the cross-entropy", ("ce_gradient",), 1),
    Panel("pseudo-labels above threshold (%)", ("mask_rate",)),
    Panel("correct pseudo-labels (%)", ("pseudo_label_accuracy",)),
)
"""Metrics to draw, each if two methods or more measured it at two epochs or more."""

COLUMNS = 2

DASHES = ("-", "--", ":")
"""Line styles in the order of their use, after all colors of the cycle."""

MOST_DOTS = 60
"""Lines of more epochs have no dots."""


def dynamics(methods: Mapping[str, Sequence[Curves]], *, title: str) -> Figure:
    """Plot the mean over the runs of each method by epoch, and from their lowest to their highest as a band.

    ``methods`` has the runs of each method, one per seed. Raises ValueError if there is nothing to plot.
    """
    shown = panels(methods)
    if not shown:
        raise ValueError("no two methods have measured the same quantity at two epochs")
    rows = -(-len(shown) // COLUMNS)
    figure, axes = canvas(0.7 + 1.7 * rows, rows, min(len(shown), COLUMNS), width=WIDE)
    for panel, place in zip(shown, axes, strict=False):
        for index, runs in enumerate(methods.values()):
            _draw(place, series(panel, runs), _look(index))
        place.set(title=panel.title)
        set_ticks(place.yaxis, most=5)
        set_ticks(place.xaxis, integer=True, most=6)
        place.grid(axis="y", lw=0.3, alpha=0.6)
    for place in axes[len(shown) :]:
        place.remove()
    for place in axes[: len(shown)][-COLUMNS:]:
        place.set_xlabel("epoch")
    for index, (name, runs) in enumerate(methods.items()):
        label = name if len(runs) == 1 else f"{name} ({len(runs)} seeds)"
        axes[0].plot([], [], **_look(index), label=label)
    figure.suptitle(title, fontsize=8)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def panels(methods: Mapping[str, Sequence[Curves]]) -> list[Panel]:
    """The panels that compare something: two methods or more have them at two epochs or more."""
    shown = [panel for panel in PANELS if sum(len(series(panel, runs)) > 1 for runs in methods.values()) > 1]
    of_pixels = replace(ACCURACY, title="pixel accuracy (%)")  # which is what accuracy means beside mean IoU
    return [of_pixels if panel is ACCURACY and MEAN_IOU in shown else panel for panel in shown]


def series(panel: Panel, runs: Sequence[Curves]) -> dict[float, list[float]]:
    """The values of the runs that measured the panel, by epoch, for the epochs that all of them have."""
    by_epoch = []
    for run in runs:
        metric = next((name for name in panel.metrics if any(name in row for row in run)), None)
        if metric:
            by_epoch.append({row["epoch"]: panel.scale * row[metric] for row in run if metric in row})
    common = set.intersection(*map(set, by_epoch)) if by_epoch else set()
    return {epoch: [found[epoch] for found in by_epoch] for epoch in sorted(common)}


def _look(index: int) -> dict[str, Any]:
    """Color and dashes of the line of method ``index``: no two methods look the same."""
    return {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[index // len(CYCLE) % len(DASHES)]}


def _draw(axes: Axes, values: Mapping[float, Sequence[float]], look: Mapping[str, Any]) -> None:
    """Draw the mean of ``values`` by epoch, and the band of its seeds."""
    if not values:
        return
    epochs, seeds = list(values), np.array(list(values.values()))
    axes.plot(epochs, seeds.mean(1), **look, marker="o" if len(epochs) <= MOST_DOTS else "", ms=2)
    if seeds.shape[1] > 1:
        axes.fill_between(epochs, seeds.min(1), seeds.max(1), color=look["color"], alpha=0.2, lw=0)
