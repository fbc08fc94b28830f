"""Figures with one line per row and 95 % intervals: the claims of the paper, and the rankings of boards."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from textwrap import shorten

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkl.records import Record
from dkl.reporting.boards.claims import ClaimRow, claim_boards
from dkl.reporting.boards.leaderboards import ConfigurationRow, headline_of, is_complete, leaderboards
from dkl.reporting.boards.paper import PaperBoard
from dkl.reporting.figures.style import BLACK, BLUE, SKY, VERMILLION, Drawing, canvas, method_color, set_ticks, title_of
from dkl.reporting.figures.tradeoff import is_papers

LOOKS = {
    "agrees": (BLUE, "o", BLUE),
    "disagrees": (VERMILLION, "X", VERMILLION),
    "not visible at this size": (BLACK, "s", BLACK),
    "one seed only": (SKY, "o", "white"),
}
"""Color, marker and face of the marker by verdict."""

LONGEST_LABEL = 70
"""Letters of a label beside a wide figure."""


def claims(boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """All claims that small runs test, in one figure. Claims about seconds or the like are left out."""
    for board in claim_boards(boards):
        rows = [row for row in board.rows if row.column.unit == "%"]
        if rows:
            yield f"forest-{board.name}", partial(forest, rows, title=board.title)


def forest(rows: Sequence[ClaimRow], *, title: str) -> Figure:
    """Plot one line per claim, in percentage points, with a heading per experiment.

    The claimed side is the right one; for a claim of equality it is the gray bar around 0.
    """
    lines: list[tuple[str, ClaimRow | None]] = []
    for experiment, own in groupby(rows, lambda row: row.board.manifest.title):
        lines += [(experiment, None), *((row.claim.text, row) for row in own)]
    figure, axes = _one_line_per_row([(text, row is None) for text, row in lines], title, 0.155, wide=True)
    axes.axvline(0, color="0.6", lw=0.8, zorder=1)
    for place, (_, row) in enumerate(lines):
        if row:
            color, marker, face = LOOKS[row.verdict]
            low, high, middle = (row.column.scale * getattr(row.outcome, key) for key in ("low", "high", "difference"))
            if within := row.claim.within:
                axes.barh(place, 2 * within, left=-within, height=0.7, color="0.85", zorder=0)
            axes.plot([low, high], [place, place], color=color, lw=1.2)
            axes.plot([middle], [place], marker, ms=4.5, color=color, mfc=face)
    axes.tick_params(axis="y", length=0)
    set_ticks(axes.xaxis, most=5)  # the axes are narrow beside the claims
    axes.set_xlabel("difference (percentage points)")
    seen = {row.verdict for row in rows}
    handles = [
        Line2D([], [], ls="", marker=marker, ms=4.5, color=color, mfc=face, label=verdict)
        for verdict, (color, marker, face) in LOOKS.items()
        if verdict in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.2)
    return figure


def rankings(records: Sequence[Record], include_smoke: bool) -> Iterator[Drawing]:
    """One figure per board: its complete rows with every seed and the interval. Parts of AutoAttack are not drawn."""
    for board in leaderboards(records, include_smoke):
        rows = [row for row in board.rows if is_complete(row)]
        if rows and not board.part:  # nothing is ranked on a part of the test set
            yield f"ranking-{board.name}", partial(ranking, rows, title=title_of(board.title))


def ranking(rows: Sequence[ConfigurationRow], *, title: str) -> Figure:
    """Plot one line per row of a board, best first: a ring per seed, the mean and its 95 % interval, in percent.

    The paper's losses have a bold label.
    """
    methods = [row.method for row in rows]
    labels = [row.method if methods.count(row.method) == 1 else f"{row.method}, {row.weights}" for row in rows]
    labels = [shorten(label, LONGEST_LABEL, placeholder=" …") for label in labels]
    longest = max(map(len, labels))
    wide = longest > LONGEST_LABEL / 2  # labels must leave room for the axes
    bold = [is_papers(row.records[0]) for row in rows]
    figure, axes = _one_line_per_row(list(zip(labels, bold, strict=True)), title, 0.24, wide)
    for place, row in enumerate(rows):
        color = method_color(row.method)
        values = [100 * headline_of(record) for record in row.records]
        # The mean IoU of one seed has no interval: a line of no length stands for it.
        ends = [100 * bound for bound in row.interval] if row.interval else [values[0], values[0]]
        axes.plot(ends, [place, place], color=color, lw=1.2)
        axes.plot(values, [place] * len(values), "o", ms=4, mfc="none", color=color)
        axes.plot([sum(values) / len(values)], [place], "D", ms=4, color=color)
    first = rows[0].records[0]
    set_ticks(axes.xaxis, most=6 if longest > LONGEST_LABEL / 4 else 9)  # the axes are narrow beside long labels
    metric = "mean IoU" if first.segmented else "top-1 accuracy" if first.robust is None else "robust accuracy"
    axes.set_xlabel(f"{metric} (%)")
    return figure


def _one_line_per_row(
    labels: Sequence[tuple[str, bool]], title: str, height: float, wide: bool = False
) -> tuple[Figure, Axes]:
    """Create a figure of ``height`` inches per row, the first on top. Each label says whether it is bold."""
    figure, (axes,) = canvas(0.9 + height * len(labels), wide=wide)
    axes.set_yticks(range(len(labels)), [text for text, _ in labels])
    for label, (_, bold) in zip(axes.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if bold else "normal")
    # Over the whole figure: long labels leave the axes too narrow for it.
    figure.suptitle(title, fontsize=8)
    axes.set(ylim=(len(labels) - 0.5, -0.5))
    set_ticks(axes.xaxis)
    axes.grid(axis="x", lw=0.3, alpha=0.6)
    return figure, axes
