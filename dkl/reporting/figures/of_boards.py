"""Figures of boards: claims, trade-offs, robustness by radius, rankings, and training dynamics of experiments."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from dkl.manifests import Manifest
from dkl.records import Record
from dkl.reporting.boards.accuracy import accuracy_boards
from dkl.reporting.boards.cells import budget_title
from dkl.reporting.boards.claims import ClaimRow, claim_boards
from dkl.reporting.boards.configuration import headline_of, is_complete
from dkl.reporting.boards.leaderboard import leaderboards
from dkl.reporting.boards.paper import PaperBoard, PaperRow
from dkl.reporting.figures import series
from dkl.reporting.figures.of_runs import curves_of_seeds
from dkl.reporting.figures.plots.claims import Tested, forest
from dkl.reporting.figures.plots.curves import IN_255, robustness_curves
from dkl.reporting.figures.plots.dynamics import dynamics, panels
from dkl.reporting.figures.plots.ranking import Ranked, ranking
from dkl.reporting.figures.plots.tradeoff import tradeoff
from dkl.reporting.figures.titles import TITLE_WIDTH, Drawing, file_name, title_of
from dkl.reporting.grouping import group
from dkl.reporting.names import attacks_label, slug

PAPER_LOSSES = ("dkl.losses.DKL", "dkl.losses.IKL", "dkl.losses.GKL")
"""The paper's losses, whose rows have their own color."""

OURS, OTHERS = "losses of the paper", "other losses"
"""Groups of an experiment's trade-off."""


def claims(boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """All claims that small runs test, in one figure. Claims about seconds or the like are left out."""
    for board in claim_boards(boards):
        tested = [_tested(row) for row in board.rows if row.column.unit == "%"]
        if tested:
            yield f"forest-{board.name}", partial(forest, tested, title=board.title)


def _tested(row: ClaimRow) -> Tested:
    found, scale = row.outcome, row.column.scale
    return Tested(
        claim=row.claim.text,
        experiment=row.board.manifest.title,
        difference=scale * found.difference,
        low=scale * found.low,
        high=scale * found.high,
        verdict=row.verdict,
        within=row.claim.within,
    )


def tradeoffs(manifests: Sequence[Manifest], boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Figure 2: the points of the table that its manifest names."""
    for manifest in manifests:
        if manifest.figure.get("draw") != "tradeoff":
            continue
        name, x, y, by = (manifest.figure[key] for key in ("table", "x", "y", "by"))
        table = next(found for found in manifests if found.name == name)
        of_it = [board for board in boards if board.manifest.name == name]
        own = {board.budget or "": series.measured_points(board, x, y, _cell(by)) for board in of_it}
        points = {**own, "paper": [*series.published_points(table, x, y, by), *own.get("paper", [])]}
        # Budget paper has the published points and ours; other budgets have only ours.
        titles = _axis_titles(table, x, y)
        for budget, shown in points.items():
            title = title_of(manifest.title, "" if budget == "paper" else budget_title(budget))
            if shown:
                yield file_name(manifest, "", budget), partial(tradeoff, shown, title=title, **titles)


def tradeoffs_of_experiments(boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Clean against robust accuracy: one figure per experiment with three rows or more that have both."""
    for board in boards:
        clean, robust = (_first_column(board.manifest, metric) for metric in ("clean", "robust"))
        if board.manifest.kind or not clean or not robust:
            continue
        points = series.measured_points(board, clean, robust, lambda row: OURS if _is_ours(row.records[0]) else OTHERS)
        if len(points) > 2:
            title = title_of(board.manifest.title, budget_title(str(board.budget)))
            titles = _axis_titles(board.manifest, clean, robust)
            yield slug(f"tradeoff-{board.name}"), partial(tradeoff, points, title=title, **titles)


def _cell(by: str) -> Callable[[PaperRow], str]:
    """Return the function that gives a row's cell ``by``."""
    return lambda found: found.row.show.get(by, "")


def _axis_titles(manifest: Manifest, x: str, y: str) -> dict[str, str]:
    """Return the titles of the two axes of a trade-off."""
    return {"x": f"{manifest.columns[x].title} accuracy", "y": manifest.columns[y].title}


def _first_column(manifest: Manifest, metric: str) -> str | None:
    """Return the first column of ``metric``, or None."""
    return next((key for key, column in manifest.columns.items() if column.metric == metric), None)


def _is_ours(record: Record) -> bool:
    """Whether the record's network was trained with a loss of the paper."""
    return (record.training.get("loss") or {}).get("_target_") in PAPER_LOSSES


def radii(tables: Sequence[Manifest], boards: Sequence[PaperBoard], records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by radius: tables with one column per radius, then all other records at several radii."""
    shown: set[str] = set()
    for table in filter(series.radius_columns, tables):
        lines = series.published_lines(table)
        for board in boards:
            if board.manifest.name == table.name and board.budget == "paper":
                lines += series.measured_lines(board)
                shown |= {record.id for row in board.rows for record in row.records}
        if lines:
            yield f"{table.name}-radii", partial(robustness_curves, lines, title=title_of(table.title))
    # Records in a table's figure are not drawn a second time.
    attacked = [record for record in records if record.attacks and record.id not in shown]
    for alike in group(attacked, lambda r: (r.budget, r.dataset, r.norm, attacks_label(r))).values():
        if lines := series.record_lines(alike):
            one, attack = alike[0], attacks_label(alike[0])
            title = title_of(f"{one.dataset}, {one.norm}, {attack}", budget_title(one.budget))
            name = slug(f"radii-{one.budget}-{one.dataset}-{one.norm}-{attack}")
            yield name, partial(robustness_curves, lines, title=title, unit=_unit(alike))


def _unit(records: Sequence[Record]) -> str:
    """Return the unit in which the radii of ``records``, all of one norm, are easiest to read."""
    if records[0].norm != "Linf":
        return records[0].norm
    return IN_255 if any("/255" in record.eps_text for record in records) else "pixels in [0, 1]"


def rankings(records: Sequence[Record], include_smoke: bool) -> Iterator[Drawing]:
    """One figure per board: its complete rows with every seed and the interval. Parts of AutoAttack are not drawn."""
    known = {record.id: record for record in records}
    for board in (*leaderboards(records, include_smoke), *accuracy_boards(records, include_smoke)):
        complete = [row for row in board.rows if is_complete(row)]
        if board.part or not complete:  # nothing there is ranked
            continue
        methods, rows = [row.method for row in complete], []
        for row in complete:
            found = [known[name] for name in row.record_ids]
            accuracies = [headline_of(one) for one in found]
            # The mean IoU of one seed has no interval: a line of no length stands for it.
            interval = row.interval or (accuracies[0], accuracies[0])
            label = row.method if methods.count(row.method) == 1 else f"{row.method}, {row.weights}"
            rows.append(Ranked(label, accuracies, interval, ours=_is_ours(found[0])))
        first = known[complete[0].record_ids[0]]
        metric = "top-1 accuracy" if first.robust is None else "robust accuracy"
        metric = "mean IoU" if first.segmented else metric
        yield f"ranking-{board.name}", partial(ranking, rows, title=title_of(board.title), metric=metric)


def training_dynamics(boards: Sequence[PaperBoard], folder: Path) -> Iterator[Drawing]:
    """Training dynamics: one figure per experiment that has trained two rows or more.

    An experiment that only evaluates the runs of one before it, by name, has none.
    """
    drawn: list[set[tuple[str, int | None]]] = []
    for board in sorted(boards, key=lambda board: board.manifest.name):
        runs = {(record.config_hash, record.seed) for row in board.rows for record in row.records}
        if board.manifest.kind or board.budget is None or any(runs <= earlier for earlier in drawn):
            continue
        drawn.append(runs)
        # Teachers train for longer. Broken curves are reported with the figure of their own row.
        rows = [row for row in board.rows if row.row not in board.manifest.teachers.values()]
        labels = [row.row.label for row in rows]
        found = [curves_of_seeds(row.records, folder, []) for row in rows]
        # Rows of one label, such as those of several datasets, are distinguished by their names.
        names = [label if labels.count(label) == 1 else row.row.name for label, row in zip(labels, rows, strict=True)]
        trained = {name: curves for name, curves in zip(names, found, strict=True) if curves}
        if panels(trained):
            title = title_of(board.manifest.title, budget_title(board.budget), width=2 * TITLE_WIDTH)
            yield slug(f"dynamics-{board.name}"), partial(dynamics, trained, title=title)
