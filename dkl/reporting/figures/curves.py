"""Metrics by training epoch: of the seeds of one row, of several runs, and of the methods of an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dkl.errors import UserError
from dkl.records import Curves, Record, load_curves
from dkl.reporting.boards import budget_title
from dkl.reporting.boards.paper import PaperBoard
from dkl.reporting.figures import style
from dkl.reporting.grouping import created_at, group, slug

ACCURACIES = {
    "natural_accuracy": ("training, natural", style.BLUE, "--"),
    "adversarial_accuracy": ("training, attacked", style.VERMILLION, "--"),
    "test_accuracy": ("test, natural", style.BLUE, "-"),
    "test_miou": ("test, mean IoU", style.GREEN, "-"),
    "average_test_miou": ("test, mean IoU of averaged weights", style.PURPLE, "-"),
    "average_test_accuracy": ("test, average of weights", style.GREEN, "-"),
    "robust_accuracy": ("held out, attacked", style.VERMILLION, "-"),
    "pseudo_label_accuracy": ("pseudo-labels, correct", style.ORANGE, "-"),
    "mask_rate": ("unlabeled, above threshold", style.ORANGE, ":"),
}
"""Label, color and line style of each accuracy of one row."""

ACCURACY, MEAN_IOU = "test accuracy (%)", "mean IoU (%)"

PANELS = {
    ACCURACY: ("average_test_accuracy", "test_accuracy"),
    MEAN_IOU: ("average_test_miou", "test_miou"),
    "robust accuracy, held out (%)": ("robust_accuracy",),
    "robust accuracy, training (%)": ("adversarial_accuracy",),
    "gradient norm of the wMSE": ("wmse_gradient",),
    "gradient norm of the cross-entropy": ("ce_gradient",),
    "pseudo-labels above threshold (%)": ("mask_rate",),
    "correct pseudo-labels (%)": ("pseudo_label_accuracy",),
}
"""Titles of an experiment's panels, and the metrics of which each shows the first that a run measured."""

Series = dict[float, list[float]]
"""The values of all seeds by epoch."""

COLUMNS = 2

MOST_LINES = 6
"""Lines of a panel; more methods have another figure."""

LONGEST_LABEL, LONGEST_OF_THREE = 110, 48
"""Characters of a line in the legend, and of an entry that has two others beside it."""

MOST_DOTS = 60


def curves(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[style.Drawing]:
    """Training curves: one figure per trained row, one line per seed."""
    for own in group((r for r in records if r.training), lambda r: (r.budget, r.row)).values():
        if runs := _curves_of_seeds(own, folder, problems):
            first, seeds = own[0], f"{len(runs)} seeds" if len(runs) > 1 else f"seed {own[0].seed}"
            title = style.title_of(first.method, first.dataset, first.architecture, seeds, budget_title(first.budget))
            name = slug(f"curves-{first.budget}-{first.dataset}-{first.architecture}-{first.method}-{first.row}")
            yield name, partial(training_curves, runs, title=title)


def training_dynamics(boards: Sequence[PaperBoard], folder: Path) -> Iterator[style.Drawing]:
    """Training dynamics: one figure per experiment that has trained two rows or more.

    An experiment that only evaluates the runs of an earlier one has none.
    """
    drawn: list[set[tuple[str, int | None]]] = []
    for board in boards:
        runs = {(record.config_hash, record.seed) for row in board.rows for record in row.records}
        if board.manifest.kind or board.budget is None or any(runs <= earlier for earlier in drawn):
            continue
        drawn.append(runs)
        # Teachers train for longer. Broken curves are reported with the figure of their own row.
        rows = [row for row in board.rows if row.row not in board.manifest.teachers.values()]
        labels = [row.row.label for row in rows]
        trained: dict[str, list[Curves]] = {}
        for row in rows:
            # Rows of one label, such as those of several datasets, are distinguished by their names.
            name = row.row.label if labels.count(row.row.label) == 1 else row.row.name
            if own := _curves_of_seeds(row.records, folder, []):
                trained[name] = own
        parts = max(1, -(-len(trained) // MOST_LINES))
        size = -(-len(trained) // parts)
        for part in range(parts):
            drawn_here = dict(islice(trained.items(), part * size, (part + 1) * size))
            if shown := panels(drawn_here):
                names = [name if len(own) == 1 else f"{name} ({len(own)} seeds)" for name, own in drawn_here.items()]
                number = f"{part + 1} of {parts}" if parts > 1 else ""
                title = style.title_of(board.manifest.title, budget_title(board.budget), number, wide=True)
                name = slug(f"dynamics-{board.name}{f'-{part + 1}' if part else ''}")
                yield name, partial(dynamics, names, shown, title=title)


def _curves_of_seeds(records: Sequence[Record], folder: Path, problems: list[str]) -> list[Curves]:
    """Return the curves of ``records`` that have some, one per seed."""
    runs = []
    for same in group(records, lambda record: record.seed).values():
        try:
            runs.append(load_curves(folder / f"{max(same, key=created_at).id}.json"))
        except UserError as error:
            problems.append(str(error))
    return [run for run in runs if run]


def training_curves(runs: Sequence[Curves], *, title: str) -> Figure:
    """Plot accuracies in percent, and the loss below, by epoch. Several runs are seeds of one row."""
    figure, (top, bottom) = style.canvas(3.4, 2, 1, sharex=True, height_ratios=(2, 1))
    # Thin, transparent lines keep several seeds apart.
    several: dict[str, Any] = {"alpha": 0.6, "lw": 0.8} if len(runs) > 1 else {}
    lines = [(top, metric, 100, *look) for metric, look in ACCURACIES.items()]
    lines += [
        (bottom, "loss", 1, "", style.PURPLE, "-"),
        (bottom, "labeled_loss", 1, "loss on labeled images", style.PURPLE, "--"),
    ]
    for axes, metric, scale, label, color, dashes in lines:
        for run in runs:
            if points := [(row["epoch"], scale * row[metric]) for row in run if metric in row]:
                look = {"marker": "o" if len(points) == 1 else "", "ms": 3, "color": color, "ls": dashes, **several}
                axes.plot(*zip(*points, strict=True), **look, label=label or None)
                label = ""  # one legend entry for all runs
    top.set(title=title, ylabel="accuracy (%)")
    bottom.set(xlabel="epoch", ylabel="loss")
    style.set_ticks(top.yaxis)
    style.set_ticks(bottom.yaxis, most=6)
    style.set_ticks(bottom.xaxis, integer=True)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
    figure.align_ylabels()
    return figure


def panels(
    methods: Mapping[str, Sequence[Curves]], titles: Mapping[str, Sequence[str]] = PANELS, fewest: int = 2
) -> dict[str, list[Series]]:
    """Return the panels that ``fewest`` methods have at as many epochs: per title, the series of each method.

    ``titles`` are those of ``PANELS`` or others like them. A series is empty if its method has none.
    """

    def series(title: str, runs: Sequence[Curves]) -> Series:
        """The values of the first metric of a title that a run has, for the epochs that all ``runs`` have."""
        scale, by_epoch = 100 if title.endswith("(%)") else 1, []
        for run in runs:
            if metric := next((name for name in titles[title] if any(name in row for row in run)), None):
                by_epoch.append({row["epoch"]: scale * row[metric] for row in run if metric in row})
        common = set.intersection(*map(set, by_epoch)) if by_epoch else set()
        return {epoch: [values[epoch] for values in by_epoch] for epoch in sorted(common)}

    every = {title: [series(title, runs) for runs in methods.values()] for title in titles}
    shown = {title: own for title, own in every.items() if sum(len(values) >= fewest for values in own) >= fewest}
    # Beside mean IoU, accuracy is that of pixels.
    return {"pixel accuracy (%)" if title == ACCURACY and MEAN_IOU in shown else title: shown[title] for title in shown}


def dynamics(
    methods: Sequence[str], shown: Mapping[str, Sequence[Series]], *, title: str, dots: int = MOST_DOTS
) -> Figure:
    """Plot the mean over seeds by epoch, and a band from lowest to highest: a panel per title, a line per method.

    Lines of at most ``dots`` epochs have dots.
    """
    rows = -(-len(shown) // COLUMNS)
    figure, axes = style.canvas(0.7 + 1.7 * rows, rows, min(len(shown), COLUMNS), wide=True)
    looks = style.line_looks(methods)
    for place, (name, of_methods) in zip(axes, shown.items(), strict=False):
        for look, series in zip(looks, of_methods, strict=True):
            if series:
                epochs, seeds = list(series), np.array(list(series.values()))
                place.plot(epochs, seeds.mean(1), **look, marker="o" if len(epochs) <= dots else "", ms=2)
                if seeds.shape[1] > 1:
                    place.fill_between(epochs, seeds.min(1), seeds.max(1), color=look["color"], alpha=0.2, lw=0)
        place.set(title=name)
        style.set_ticks(place.yaxis, most=5)
        style.set_ticks(place.xaxis, integer=True, most=6)
        place.grid(axis="y", lw=0.3, alpha=0.6)
    for place in axes[len(shown) :]:
        place.remove()
    for place in axes[: len(shown)][-COLUMNS:]:
        place.set_xlabel("epoch")
    for look, method in zip(looks, methods, strict=True):
        axes[0].plot([], [], **look, label=fill(method, LONGEST_LABEL))
    figure.suptitle(title, fontsize=8)
    figure.legend(loc="outside lower center", ncols=3 if max(map(len, methods)) < LONGEST_OF_THREE else 1)
    return figure
