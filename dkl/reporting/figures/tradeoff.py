"""Clean against robust accuracy, from rows to the drawing: Figure 2, trade-offs, frontiers, and boards of entries.

Color gives the method, shape its group, and the filling its origin. A frontier has a line per loss along its weights.
Entries are colored by whether they were verified.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from dkl.errors import shortened
from dkl.manifests import Column, Manifest
from dkl.records import Record
from dkl.reporting.boards import budget_title
from dkl.reporting.boards.entries import CLAIMED, ROBUSTBENCH
from dkl.reporting.boards.leaderboards import ConfigurationRow
from dkl.reporting.boards.paper import PaperBoard, lines_of
from dkl.reporting.boards.paper_rows import PaperRow
from dkl.reporting.figures import style
from dkl.reporting.grouping import slug
from dkl.reporting.statistics import SeedMean

PAPER_LOSSES = ("dkl.losses.DKL", "dkl.losses.IKL", "dkl.losses.GKL")
"""The paper's losses, whose rows have their own shape, and bold labels in rankings."""

PAPERS, OTHERS = "losses of the paper", "other losses"
"""Groups of an experiment's trade-off."""

FILLING = {
    "own": ("the paper's method", lambda color: {"color": color, "mfc": color, "mec": color}),
    "here": ("our runs", lambda color: {"color": color, "mfc": color, "mec": "black"}),
    "other": ("other methods", lambda color: {"color": color, "mfc": "white", "mec": color}),
}
"""By origin: its entry in the legend, and face and edge of its markers in a color. Others have origin ``other``."""

REACH = 25.0
"""Published rows and points of a frontier are drawn if both accuracies are at most this many points below the best."""

LABELED = 28
"""Characters of an entry's label; longer names are cut."""

SIZE = 5.5
"""Diameter of a marker in points (1/72 inch)."""


@dataclass(frozen=True)
class Point:
    """A method at its accuracies in percent. ``group`` gives the shape, ``origin`` the filling.

    ``spread`` are the standard deviations of x and y over seeds, None for a single seed.
    """

    label: str
    x: float
    y: float
    group: str
    origin: str | None = None
    spread: tuple[float, float] | None = None

    @property
    def filling(self) -> str:
        """The key in ``FILLING`` of the origin."""
        return self.origin if self.origin in FILLING else "other"


def tradeoffs(manifests: Sequence[Manifest], boards: Sequence[PaperBoard]) -> Iterator[style.Drawing]:
    """Figure 2 from the table that its manifest names, then a figure per experiment.

    Experiments need three rows or more that have both accuracies. One whose manifest names lines has a frontier.
    """
    for manifest in manifests:
        if manifest.figure.get("draw") == "tradeoff":
            table = next(table for table in manifests if table.name == manifest.figure["table"])
            yield from _of_table(manifest, table, [board for board in boards if board.manifest.name == table.name])
    for board in boards:
        if board.manifest.figure.get("draw") == "frontier":
            if any(len(rows) > 1 for rows in lines_of(board.manifest, board.rows).values()):
                yield slug(f"frontier-{board.name}"), partial(frontier, board)
            continue
        columns = board.manifest.columns
        x, y = (next((key for key in columns if columns[key].metric == metric), None) for metric in ("clean", "robust"))
        if board.manifest.kind or not x or not y:
            continue
        points = measured_points(board, x, y, lambda row: PAPERS if is_papers(row.records[0]) else OTHERS)
        if len(points) > 2:
            title = style.title_of(board.manifest.title, budget_title(str(board.budget)))
            yield slug(f"tradeoff-{board.name}"), partial(tradeoff, points, title=title, x=columns[x], y=columns[y])


def _of_table(manifest: Manifest, table: Manifest, boards: Sequence[PaperBoard]) -> Iterator[style.Drawing]:
    """Draw a table's published points and ours of budget paper together, and other budgets each on its own."""
    x, y, by = (manifest.figure[key] for key in ("x", "y", "by"))
    ours = {board.budget: measured_points(board, x, y, lambda row: row.row.show.get(by, "")) for board in boards}
    figures = {**ours, "paper": [*published_points(table, x, y, by), *ours.get("paper", [])]}
    for budget, points in figures.items():
        if points:
            title = style.title_of(manifest.title, "" if budget == "paper" else budget_title(str(budget)))
            draw = partial(tradeoff, points, title=title, x=table.columns[x], y=table.columns[y])
            yield style.file_name(manifest, "", str(budget)), draw


def is_papers(record: Record) -> bool:
    """Whether the record's network was trained with a loss of the paper."""
    return (record.training.get("loss") or {}).get("_target_") in PAPER_LOSSES


def published_points(table: Manifest, x: str, y: str, by: str) -> list[Point]:
    """Return a point per row whose columns ``x`` and ``y`` are published, preferably by the paper.

    The cell ``by`` of a row gives its group.
    """
    points = []
    for row in table.rows:
        both = [values for values in (row.paper, *row.published.values()) if x in values and y in values]
        points += [Point(row.label, both[0][x], both[0][y], row.show.get(by, ""), row.origin)] if both else []
    return points


def measured_points(board: PaperBoard, x: str, y: str, group_of: Callable[[PaperRow], str]) -> list[Point]:
    """Return a point per row that we ran: the mean over the seeds that have both columns."""
    points = []
    for row in board.rows:
        across, up = row.measurements[x], row.measurements[y]
        if seeds := sorted(across.keys() & up.keys()):
            # Both coordinates average over the same seeds, else the point would mix different runs.
            at = [SeedMean.over([cell[seed].value for seed in seeds]) for cell in (across, up)]
            spread = None if at[0].std is None or at[1].std is None else (100 * at[0].std, 100 * at[1].std)
            points.append(Point(row.row.label, 100 * at[0].mean, 100 * at[1].mean, group_of(row), "here", spread))
    return points


def tradeoff(points: Sequence[Point], *, title: str, x: Column, y: Column) -> Figure:
    """Plot labeled points, and a legend of groups and origins.

    Methods that occur in several groups have the group in their label, so that no label depends on its color.
    """
    figure, (axes,) = style.canvas(3.3)
    groups = dict.fromkeys(point.group for point in points)
    markers = {group: style.MARKERS[i % len(style.MARKERS)] for i, group in enumerate(groups)}
    base: dict[str, Any] = {"ls": "", "ms": SIZE, "mew": 1.0}
    covered = []  # places on markers and bars, which labels avoid
    for point in points:
        color = style.method_color(point.label)
        across, up = point.spread or (0.0, 0.0)
        if point.spread:
            axes.errorbar(point.x, point.y, xerr=across, yerr=up, color=color, elinewidth=0.8, zorder=1)
        for share in (step / 10 for step in range(-10, 11)) if point.spread else (0.0,):
            covered += [(point.x + share * across, point.y), (point.x, point.y + share * up)]
        marks = base | {"marker": markers[point.group], "zorder": 3} | FILLING[point.filling][1](color)
        axes.plot([point.x], [point.y], label=point.label, **marks)
    # Room for labels at the border.
    axes.margins(0.16)
    axes.set(title=title, xlabel=f"{x.title} accuracy (%)", ylabel=f"{y.title} (%)")
    style.set_ticks(axes.xaxis, axes.yaxis)
    handles = [Line2D([], [], color="0.35", marker=markers[group], label=group, **base) for group in groups]
    origins = {point.filling for point in points}
    handles += [
        Line2D([], [], marker="o", label=text, **base | look("0.35"))
        for key, (text, look) in FILLING.items()
        if key in origins and len(origins) > 1
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.3, columnspacing=1.2)
    of_label = Counter(label for label, _ in {(point.label, point.group) for point in points})
    names = [f"{point.label} ({point.group})" if of_label[point.label] > 1 else point.label for point in points]
    labels = [(name, point.x, point.y) for name, point in zip(names, points, strict=True)]
    style.place_labels(axes, labels, covered, reach=SIZE / 2 + 1, fontsize=7)
    return figure


def frontier(board: PaperBoard) -> Figure:
    """Plot the lines of the board's manifest, one panel per pair of columns: means over seeds, and 95 % bands of y.

    Every line has its name and every point its weight. Points far below the others are left out.
    """
    panels = board.manifest.figure["panels"]
    figure, places = style.canvas(4.0, columns=len(panels), wide=True)
    lines, columns = lines_of(board.manifest, board.rows), board.manifest.columns
    looks = style.line_looks(list(lines))
    texts, left_out = [], []
    for axes, (x, y) in zip(places, panels, strict=True):
        labels, covered, lower = _frontier_lines(axes, board, x, y, lines, looks)
        texts.append((labels, covered))
        left_out += lower
        axes.set(xlabel=f"{columns[x].title} (%)", ylabel=f"{columns[y].title} (%)")
        axes.margins(0.12)
        style.set_ticks(axes.xaxis, axes.yaxis, most=7)
        axes.grid(lw=0.3, alpha=0.6)
    figure.suptitle(style.title_of(board.manifest.title, budget_title(str(board.budget)), wide=True), fontsize=9)
    far = f" Far below, and left out: {', '.join(left_out)}." if left_out else ""
    figure.supxlabel(f"Numbers are weights of the loss, bands 95 % intervals of each row.{far}", fontsize=7)
    marks: dict[str, Any] = {"fontsize": 7, "path_effects": [withStroke(linewidth=2, foreground="white")]}
    for axes, (labels, covered) in zip(places, texts, strict=True):
        artists = style.place_labels(axes, [label[:3] for label in labels], covered, reach=SIZE / 2 + 1, **marks)
        for (label, *_), (name, _, _, color) in zip(artists, labels, strict=True):
            label.set(color=color, fontweight="bold" if name in lines else "normal")
    return figure


def _frontier_lines(
    axes: Axes,
    board: PaperBoard,
    x: str,
    y: str,
    lines: Mapping[str, Mapping[str, PaperRow]],
    looks: Sequence[dict[str, Any]],
) -> tuple[list[tuple[str, float, float, str]], list[NDArray[Any]], list[str]]:
    """Draw ``lines`` in a panel, without the points far below the others.

    Returns its labels, each with x, y and color; the points that they avoid, which are markers and what lies between
    them; and the labels of the rows left out.
    """
    names, weights, covered, left_out = [], [], [], []
    column = board.manifest.columns[y]

    def place(row: PaperRow) -> list[float]:
        return [100 * each.mean for key in (x, y) if (each := row.mean(key))]

    corner = np.max([place(row) for rows in lines.values() for row in rows.values()], axis=0) - REACH
    for (name, every), look in zip(lines.items(), looks, strict=True):
        rows = {weight: row for weight, row in every.items() if (place(row) >= corner).all()}
        far = [row for weight, row in every.items() if weight not in rows]
        left_out += ["{} ({:.1f}, {:.1f})".format(row.row.label, *place(row)) for row in far]
        if not rows:
            continue
        at = np.array([place(row) for row in rows.values()])
        ends = 100 * np.array([row.interval(y, column) or [np.nan, np.nan] for row in rows.values()])
        band = np.concatenate([np.stack([at[:, 0], ends[:, side]], 1)[:: 1 - 2 * side] for side in (0, 1)])
        axes.fill(*band.T, color=look["color"], alpha=0.09, lw=0)
        if len(rows) == 1:
            axes.vlines(at[:, 0], *ends.T, color=look["color"], alpha=0.35, lw=0.8)
        axes.plot(*at.T, **look, marker="o", ms=SIZE)
        names.append((name, *at[-1], look["color"]))
        if len(board.manifest.figure["lines"][name]) > 1:
            weights += [(weight, *xy, look["color"]) for weight, xy in zip(rows, at, strict=True)]
        covered += [start + share * (end - start) for start, end in pairwise(at) for share in np.linspace(0, 1, 20)]
        covered += [*at]
    return [*names, *weights], covered, left_out


def entries(rows: Sequence[ConfigurationRow]) -> Figure:
    """Plot the rows of a board of entries and their Pareto front; all but the published ones have their names.

    What belongs to row N has the id ``row-N``, and ``row-N-0`` and ``row-N-1`` its label and the line to it.
    """
    points = np.array([[100 * row.means[key].mean for key in ("clean", "robust")] for row in rows])
    named = [i for i, row in enumerate(rows) if row.source != ROBUSTBENCH]
    near = [i for i in range(len(rows)) if i in named or (points.max(axis=0) - points[i] <= REACH).all()]
    looks: dict[str, dict[str, Any]] = {
        "published by RobustBench": {"color": "0.6", "marker": "o", "ms": 4},
        "entries, claimed": {"color": style.VERMILLION, "marker": "o", "ms": SIZE},
        "entries, verified": {"color": style.BLUE, "marker": "D", "ms": SIZE},
    }
    figure, (axes,) = style.canvas(3.6, wide=True)
    for i in sorted(near, key=named.__contains__):  # ours are drawn over the others
        kind = 0 if i not in named else 1 if rows[i].status == CLAIMED else 2
        axes.plot(*points[[i]].T, ls="", gid=f"row-{i}", zorder=3, **list(looks.values())[kind])
    front = points[near][pareto_front(points[near])]
    axes.plot(*front.T, color=style.BLUE, lw=0.8)
    for text, look in looks.items():
        axes.plot([], [], ls="", label=text, **look)
    axes.plot([], [], color=style.BLUE, lw=0.8, label="Pareto front")
    axes.set(xlabel="clean accuracy (%)", ylabel="robust accuracy (%)")
    style.set_ticks(axes.xaxis, axes.yaxis)
    axes.grid(lw=0.3, alpha=0.6)
    left_out = f"{len(rows) - len(near)} published rows lie outside" if len(near) < len(rows) else ""
    figure.legend(loc="outside lower center", ncols=4, title=left_out)
    between = [start + share * (end - start) for start, end in pairwise(front) for share in np.linspace(0, 1, 20)]
    names = [(shortened(rows[i].method, LABELED), *points[i]) for i in named]
    labels = style.place_labels(axes, names, [*points[near], *between], reach=SIZE / 2 + 1, fontsize=7)
    for i, artists in zip(named, labels, strict=True):
        for number, artist in enumerate(artists):
            artist.set_gid(f"row-{i}-{number}")
    return figure


def pareto_front(points: ArrayLike) -> list[int]:
    """Return the indices of the ``points[N, 2]`` that no other exceeds in one value and reaches in the other, by x."""
    front: list[int] = []
    values = np.asarray(points)
    for i in np.lexsort(-values.T[::-1]):  # from the largest x, and of equal ones from the largest y
        if not front or values[i, 1] > values[front[-1], 1]:
            front.append(int(i))
    return front[::-1]
