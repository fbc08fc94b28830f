"""The paper's tables with our results beside the paper's values: one board per manifest and budget with records.

A record belongs to a row if both train the same, whatever the record's method is called. Budgets are never mixed.
Per quantity there are the published value, ours and the difference. Differences exist only at budget ``paper``: other
budgets are not comparable with published values.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from dkl.errors import UserError
from dkl.manifests import Manifest, identities, may_train, own_sizes
from dkl.records import Record
from dkl.reporting import statistics
from dkl.reporting.boards import (
    Board,
    ColumnSpec,
    budget_title,
    notes,
    plain_flag,
    seeds_cell,
)
from dkl.reporting.boards.paper_rows import PaperRow, Quantity, foreign_records, make_rows
from dkl.reporting.grouping import REFERENCE, TOPICS, attacks_label, group, is_reference, record_ids, topic

PAPER_BUDGETS = ("paper", "mini", "smoke")
"""Sizes of the paper's experiments. Budget ``own`` has no row in the paper, but in an experiment of its own sizes."""

WIDEST = 4
"""The differences of more quantities than this are left to machines: people could not see all columns at once."""

Comparisons = Mapping[int, statistics.Comparison | str]
"""By the position of the manifest's claim. A text says why a comparison is impossible."""


@dataclass(frozen=True, kw_only=True)
class PaperBoard(Board[PaperRow]):
    """A table of the paper at one budget. A ``budget`` of None has the published values only."""

    manifest: Manifest
    comparisons: Comparisons
    shifts: Sequence[Mapping[str, statistics.Shift]] = ()
    """For each panel of the manifest's frontier, by the label of a chosen row: how far it lies above the first line."""


def papers_order(board: PaperBoard) -> tuple[int, float]:
    """Return a sort key for experiments: by topic, and by the paper's first table that their claims come from."""
    sources = " ".join(claim.source for claim in board.manifest.claims)
    first = min(map(int, re.findall(r"Table (\d+)", sources)), default=math.inf)
    return TOPICS.index(topic([record for row in board.rows for record in row.records])), first


def lines_of(manifest: Manifest, rows: Iterable[PaperRow]) -> dict[str, dict[str, PaperRow]]:
    """Return the lines of a manifest's frontier: by name, the rows that are measured, by their weights."""
    keys = {key for panel in manifest.figure.get("panels", ()) for key in panel}
    known = {row.row.name: row for row in rows if all(row.measurements.get(key) for key in keys)}
    lines = {
        line: {str(weight): known[name] for weight, name in names.items() if name in known}
        for line, names in manifest.figure.get("lines", {}).items()
    }
    return {line: own for line, own in lines.items() if own}


def paper_boards(
    manifests: Sequence[Manifest],
    records: Sequence[Record],
    load: statistics.LoadFlags,
    include_smoke: bool = False,
    problems: list[str] | None = None,
) -> list[PaperBoard]:
    """Build one board per manifest with columns and budget, if there are records of any of its rows.

    Reference records have boards of their own, whose names end in ``-reference``. Budget ``smoke`` has boards only with
    ``include_smoke``. Records of a part of the test set are only named in notes. ``load`` returns the per-image flags
    of a record. A manifest with an override that does not fit is left out and added to ``problems``; without
    ``problems`` it raises UserError.
    """
    trained = [record for record in records if record.training and record.seed is not None]
    grouped = group(trained, lambda record: (record.budget, is_reference(record)))
    by_budget = {key: group(same, lambda record: record.row) for key, same in grouped.items()}
    boards: list[PaperBoard] = []
    for manifest in manifests:
        if not manifest.columns:
            continue
        budgets = PAPER_BUDGETS if manifest.kind else (*PAPER_BUDGETS, "own")
        for budget, reference in product(budgets, (False, True)):
            known = by_budget.get((budget, reference), {})
            if not known or (budget == "smoke" and not include_smoke):
                continue
            # Composing every row of every table would take a minute.
            candidates = may_train(manifest, budget, [same[0].training for same in known.values()])
            try:
                rows = identities(candidates, budget)
            except UserError as error:
                if problems is None:
                    raise
                problem = f"{manifest.name}.yaml, budget {budget}: {error}"
                problems += [] if problem in problems else [problem]  # own records and reference records have the same
                continue
            evaluated = {name: known.get(row, []) for name, row in rows.items()}
            board = _board(manifest, budget, evaluated, [] if reference else foreign_records(records), load)
            if board and reference:
                board = replace(board, name=f"{board.name}-{REFERENCE}", title=f"{board.title}, reference results")
            boards += [board] if board else []
    return boards


def published_board(manifest: Manifest, foreign: Sequence[Record] = ()) -> PaperBoard:
    """Build a board of the published values, and of published weights if ``foreign`` evaluations are of some."""
    rows = make_rows(manifest, {}, foreign)
    lines = [*([manifest.caption] if manifest.caption else []), *notes.publication_notes(manifest)]
    return make_board(manifest, None, rows, {}, [*lines, *_weights_notes(manifest, rows)])


def make_board(
    manifest: Manifest, budget: str | None, rows: Sequence[PaperRow], comparisons: Comparisons, lines: Sequence[str]
) -> PaperBoard:
    """Build a board from its rows and notes; a ``budget`` of None has no trained rows."""
    name, kind = budget, budget_title(budget) if budget else "values of the paper"
    if not budget and any(row.weights.records for row in rows):
        name, kind = "published-weights", "published weights"
    return PaperBoard(
        name=f"{manifest.name}-{name}" if name else manifest.name,
        title=f"{manifest.title} ({kind})",
        budget=budget,
        columns=tuple(_columns(manifest, budget, rows, comparisons)),
        rows=tuple(rows),
        notes=tuple(lines),
        manifest=manifest,
        comparisons=comparisons,
    )


def _weights_notes(manifest: Manifest, rows: Sequence[PaperRow]) -> list[str]:
    """Say which evaluations the columns of published weights show."""
    texts = [
        f"{notes.row_title(manifest, row.row)}: {record.method}, "
        f"{'clean' if record.accuracy_only else attacks_label(record)} ({record.id})"
        for row in rows
        for record in row.weights.records
    ]
    return [f"{notes.WEIGHTS} {'; '.join(texts)}."] if texts else []


def _board(
    manifest: Manifest,
    budget: str,
    evaluated: Mapping[str, Sequence[Record]],
    foreign: Sequence[Record],
    load: statistics.LoadFlags,
) -> PaperBoard | None:
    """Build the board of all records ``evaluated`` of each row by its name; None if it would be empty."""
    if not own_sizes(manifest, budget):
        # Parts of the test set are evaluated at the manifest's own sizes only: elsewhere columns are of all images.
        columns = {key: replace(column, n=None) for key, column in manifest.columns.items()}
        manifest = replace(manifest, columns=columns)
    # Evaluations of a part of the test set count in columns of so many images only.
    parts = {column.n for column in manifest.columns.values()}
    own = {name: [each for each in same if not each.partial or each.n in parts] for name, same in evaluated.items()}
    if not any(own.values()):
        return None
    columns = manifest.columns
    rows = make_rows(manifest, own, foreign)
    # Smoke runs must not produce a significant difference by accident.
    comparisons = {} if budget == "smoke" else _compare(manifest, rows, load)
    shifts = [] if budget == "smoke" else _shifts(manifest, rows, load)
    shown = [record for row in rows for record in row.records]
    used = {record.id for record in shown}
    unused = [record for same in own.values() for record in same if record.id not in used]
    partial = [record for name, same in evaluated.items() for record in same if record not in own[name]]
    runs = [(notes.row_title(manifest, row.row), row.records) for row in rows]
    networks = notes.distinct(record.architecture for record in shown) if budget != "paper" else ""
    lines = [
        *([manifest.caption] if manifest.caption else []),
        notes.OURS,
        *notes.equal_seed_notes(
            [one.value for one in cell.values()]
            for row in rows
            for key, cell in row.measurements.items()
            if columns[key].metric in statistics.IMAGE_FRACTIONS
        ),
        *notes.bounded_notes(shown),
        *([notes.BEST] if any(column.metric == "best" for column in columns.values()) else []),
        f"Budget {budget}: {notes.BUDGET_NOTES[budget]}.{f' Our networks: {networks}.' if networks else ''}",
        *notes.comparison_notes(manifest, comparisons),
        *notes.shift_texts(manifest, shifts),
        *notes.publication_notes(manifest),
        *_weights_notes(manifest, rows),
        *notes.training_notes(runs),
        *notes.provenance_notes(shown),
        *([f"Other evaluations of these runs, not used in this table: {record_ids(unused)}."] if unused else []),
        *([f"Evaluations of a part of the test set, not in this table: {record_ids(partial)}."] if partial else []),
    ]
    return replace(make_board(manifest, budget, rows, comparisons, lines), shifts=shifts)


def _compare(
    manifest: Manifest, rows: Sequence[PaperRow], load: statistics.LoadFlags
) -> dict[int, statistics.Comparison | str]:
    """Compare the rows of each claim whose rows are both measured, by the claim's position."""
    measured = {row.row.name: row.measurements for row in rows}
    comparisons: dict[int, statistics.Comparison | str] = {}
    for position, claim in enumerate(manifest.claims):
        better, than = measured[claim.better][claim.column], measured[claim.than][claim.column]
        if better and than:
            largest = 1.0 if manifest.columns[claim.column].unit == "%" else math.inf
            try:
                comparisons[position] = statistics.compare(better, than, load, largest=largest)
            except UserError as error:
                comparisons[position] = str(error)
    return comparisons


def _shifts(
    manifest: Manifest, rows: Sequence[PaperRow], load: statistics.LoadFlags
) -> list[dict[str, statistics.Shift]]:
    """Compare, in each panel of the manifest's frontier, its chosen rows with the first line."""
    reference = lines_of(manifest, rows).get(next(iter(manifest.figure.get("lines", {})), ""), {})
    chosen = [row for row in rows if row.row.name in manifest.figure.get("chosen", ())]
    panels = []
    for x, y in manifest.figure.get("panels", ()):
        line = [(row.measurements[x], row.measurements[y]) for row in reference.values()]
        shifts = {
            row.row.label: statistics.shift_above((row.measurements[x], row.measurements[y]), line, load)
            for row in chosen
            if line and row.measurements[x] and row.measurements[y]
        }
        panels.append({label: shift for label, shift in shifts.items() if shift})
    return panels


# Columns.

PaperColumn = ColumnSpec[PaperRow]


def _columns(
    manifest: Manifest, budget: str | None, rows: Sequence[PaperRow], comparisons: Comparisons
) -> Iterator[PaperColumn]:
    """Yield the columns of a paper table at one budget. A ``budget`` of None leaves out ours."""
    yield PaperColumn(data={"row": lambda row: row.row.name, "method": lambda row: row.row.label})
    # What describes the rows, such as their architecture.
    for key in dict.fromkeys(key for row in rows for key in row.row.show):
        name = key.lower().replace(" ", "_")
        yield PaperColumn(key, lambda row, key=key: row.row.show.get(key, ""), name)  # type: ignore[misc]  # its default
    yield PaperColumn("Method", lambda row: row.row.label, essential=True)
    yield PaperColumn(
        data={
            "origin": lambda row: row.row.origin or "",
            "quoted": lambda row: plain_flag(row.row.quoted is not None),
            "budget": lambda row: budget or "",
        }
    )
    for key in manifest.columns:
        yield from _quantity(manifest, key, budget, rows)
    if budget is not None:
        yield PaperColumn("n", lambda row: ", ".join(row.sizes), {"n": lambda row: " ".join(row.sizes)}, align="r")
        yield PaperColumn(
            "Seeds",
            lambda row: "quoted" if row.row.quoted else seeds_cell(row.seeds),
            {"seed_list": lambda row: " ".join(map(str, row.seeds))},
        )
        yield from _claims(manifest, comparisons)


def _quantity(manifest: Manifest, key: str, budget: str | None, rows: Sequence[PaperRow]) -> Iterator[PaperColumn]:
    """Yield the published value; and ours and the difference, if the column is measured at this budget.

    An experiment whose values nobody has published has ours only.
    """
    column = manifest.columns[key]
    # The most important quantity: AutoAttack at the usual radius, else robust accuracy, else the first.
    robust = {name: other for name, other in manifest.columns.items() if other.metric == "robust"}
    standard = [name for name, other in robust.items() if (other.attacks, other.eps) == ("standard", None)]
    essential = key == next(iter((*standard, *robust, *manifest.columns)))
    cells, unit = Quantity(key, column), f" ({column.unit})" if column.unit else ""
    is_published = bool(manifest.kind) or any(row.published for row in rows)
    publisher = "paper" if any(row.row.paper for row in rows) else "published"
    # A column with metric "paper" is printed by the paper and never measured here.
    ours = not is_published or (budget is not None and column.metric != "paper")
    of_weights = any(row.of_weights.get(key) for row in rows)
    if is_published:
        yield PaperColumn(
            f"{column.header}, {publisher}{unit}" if ours or of_weights else f"{column.header}{unit}",
            cells.published,
            {f"{key}_{publisher}": lambda row: f"{row.published[key]:g}" if key in row.published else ""},
            align="r",
            essential=essential,
        )
    if of_weights:
        yield PaperColumn(
            f"{column.header}, published weights{unit}",
            lambda row: cells.ours(row.weights),
            {
                f"{key}_weights_{name}": lambda row, name=name: cells.number(row.weights, name)  # type: ignore[misc]
                for name in ("mean", "low", "high")
            },
            align="r",
            essential=essential,
        )
    if ours:
        yield PaperColumn(
            f"{column.header}, ours{unit}" if is_published else f"{column.header}{unit}",
            cells.ours,
            {f"{key}_{name}": partial(cells.number, name=name) for name in ("mean", "std", "low", "high")}
            | {f"{key}_seeds": lambda row: str(len(row.measurements.get(key, {})) or "")},
            align="r",
            essential=essential,
        )
    if ours and is_published and budget == "paper":
        measured = sum(other.metric != "paper" for other in manifest.columns.values())
        header = f"{column.header}, difference" if measured <= WIDEST else None
        yield PaperColumn(header, cells.difference, {f"{key}_difference": cells.difference}, align="r")


def _claims(manifest: Manifest, comparisons: Comparisons) -> Iterator[PaperColumn]:
    """Yield, for machines, the comparisons in which a row is claimed to be better: ``claim_1_than``, …"""
    # A row can be claimed better than several others: each claim has its own columns.
    by_row = group(comparisons, lambda claim: manifest.claims[claim].better)

    def cell(row: PaperRow, place: int, name: str) -> str:
        """Return what ``name`` is of a row's claim number ``place``, empty if it has fewer."""
        if place >= len(own := by_row.get(row.row.name, [])):
            return ""
        claim, outcome = manifest.claims[own[place]], comparisons[own[place]]
        if name in ("than", "column"):
            return str(getattr(claim, name))
        if isinstance(outcome, str):
            return ""
        value: float = getattr(outcome, name)
        return f"{value:.3g}" if name == "p" else Quantity(claim.column, manifest.columns[claim.column]).plain(value)

    for place in range(max(map(len, by_row.values()), default=0)):
        names = ("than", "column", "difference", "low", "high", "p")
        yield PaperColumn(data={f"claim_{place + 1}_{name}": partial(cell, place=place, name=name) for name in names})
