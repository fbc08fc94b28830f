"""Figure 2 and figures like it: clean against robust accuracy, from the rows of tables to the drawing.

Shape and color give the group of a method, the filling its origin.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkl.manifests import Column, Manifest
from dkl.records import Record
from dkl.reporting.boards import budget_title
from dkl.reporting.boards.paper import PaperBoard
from dkl.reporting.boards.paper_rows import PaperRow
from dkl.reporting.figures.style import CYCLE, MARKERS, Drawing, canvas, file_name, place_labels, set_ticks, title_of
from dkl.reporting.grouping import slug
from dkl.reporting.statistics import SeedMean

PAPER_LOSSES = ("dkl.losses.DKL", "dkl.losses.IKL", "dkl.losses.GKL")
"""The paper's losses, whose rows have their own color."""

PAPERS, OTHERS = "losses of the paper", "other losses"
"""Groups of an experiment's trade-off."""

FILLING = {
    "own": ("the paper's method", lambda color: {"color": color, "mfc": color, "mec": color}),
    "here": ("our runs", lambda color: {"color": color, "mfc": color, "mec": "black"}),
    "other": ("other methods", lambda color: {"color": color, "mfc": "white", "mec": color}),
}
"""By origin: its entry in the legend, and face and edge of its markers in a color. Others have origin ``other``."""

SIZE = 5.5
"""Diameter of a marker in points (1/72 inch)."""


@dataclass(frozen=True)
class Point:
    """A method at its accuracies in percent. ``group`` gives shape and color, ``origin`` the filling.

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


def tradeoffs(manifests: Sequence[Manifest], boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Figure 2 from the table that its manifest names, then a figure per experiment.

    Experiments need three rows or more that have both accuracies.
    """
    for manifest in manifests:
        if manifest.figure.get("draw") == "tradeoff":
            table = next(table for table in manifests if table.name == manifest.figure["table"])
            yield from _of_table(manifest, table, [board for board in boards if board.manifest.name == table.name])
    for board in boards:
        columns = board.manifest.columns
        x, y = (next((key for key in columns if columns[key].metric == metric), None) for metric in ("clean", "robust"))
        if board.manifest.kind or not x or not y:
            continue
        points = measured_points(board, x, y, lambda row: PAPERS if is_papers(row.records[0]) else OTHERS)
        if len(points) > 2:
            title = title_of(board.manifest.title, budget_title(str(board.budget)))
            yield slug(f"tradeoff-{board.name}"), partial(tradeoff, points, title=title, x=columns[x], y=columns[y])


def _of_table(manifest: Manifest, table: Manifest, boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Draw a table's published points and ours of budget paper together, and other budgets each on its own."""
    x, y, by = (manifest.figure[key] for key in ("x", "y", "by"))
    ours = {board.budget: measured_points(board, x, y, lambda row: row.row.show.get(by, "")) for board in boards}
    figures = {**ours, "paper": [*published_points(table, x, y, by), *ours.get("paper", [])]}
    for budget, points in figures.items():
        if points:
            title = title_of(manifest.title, "" if budget == "paper" else budget_title(str(budget)))
            draw = partial(tradeoff, points, title=title, x=table.columns[x], y=table.columns[y])
            yield file_name(manifest, "", str(budget)), draw


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
    figure, (axes,) = canvas(3.3)
    groups = list(dict.fromkeys(point.group for point in points))
    looks = {group: (CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i, group in enumerate(groups)}
    base: dict[str, Any] = {"ls": "", "ms": SIZE, "mew": 1.0}
    covered = []  # places on markers and bars, which labels avoid
    for point in points:
        color, marker = looks[point.group]
        across, up = point.spread or (0.0, 0.0)
        if point.spread:
            axes.errorbar(point.x, point.y, xerr=across, yerr=up, color=color, elinewidth=0.8, zorder=1)
        for share in (step / 10 for step in range(-10, 11)) if point.spread else (0.0,):
            covered += [(point.x + share * across, point.y), (point.x, point.y + share * up)]
        style = base | {"marker": marker, "zorder": 3} | FILLING[point.filling][1](color)
        axes.plot([point.x], [point.y], label=point.label, **style)
    # Room for labels at the border.
    axes.margins(0.16)
    axes.set(title=title, xlabel=f"{x.title} accuracy (%)", ylabel=f"{y.title} (%)")
    set_ticks(axes.xaxis, axes.yaxis)
    handles = [
        Line2D([], [], color=color, marker=marker, label=group, **base) for group, (color, marker) in looks.items()
    ]
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
    place_labels(axes, labels, covered, reach=SIZE / 2 + 1, fontsize=7)
    return figure
