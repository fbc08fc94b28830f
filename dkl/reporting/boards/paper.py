"""The paper's tables with our results beside the paper's values: one board per manifest and budget with records.

A record belongs to a row if both train the same, whatever the record's method is called. Budgets are never mixed.
Per quantity there are the published value, ours and the difference. Differences exist only at budget ``paper``: other
budgets are not comparable with published values.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from omegaconf import OmegaConf

from dkl.config import CachedCompose
from dkl.errors import UserError
from dkl.manifests import Column, Manifest, ManifestRow, identities, own_sizes, row_overrides
from dkl.manifests.manifest import Values
from dkl.records import Record
from dkl.records.metrics import Interval
from dkl.reporting.boards import (
    NONE,
    Board,
    Cell,
    ColumnSpec,
    budget_title,
    interval_cell,
    notes,
    plain_flag,
    plain_percent,
    seeds_cell,
)
from dkl.reporting.grouping import REFERENCE, group, is_reference, record_ids, unique
from dkl.reporting.statistics import (
    IMAGE_FRACTIONS,
    Comparison,
    LoadFlags,
    Measurement,
    SeedMean,
    accuracy_interval,
    compare,
    measure,
    student,
)

PAPER_BUDGETS = ("paper", "mini", "smoke")
"""Sizes of the paper's experiments. Budget ``own`` has no row in the paper, but in an experiment of its own sizes."""

WIDEST = 4
"""The differences of more quantities than this are left to machines: people could not see all columns at once."""

Measurements = Mapping[str, Mapping[int, Measurement]]
"""The measurements of a row by column and seed."""

Comparisons = Mapping[int, Comparison | str]
"""By the position of the manifest's claim. A text says why a comparison is impossible."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the manifest, its ``published`` values (percent, or the column's unit) and our ``measurements``."""

    row: ManifestRow
    published: Values
    measurements: Measurements

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds with any measurement."""
        return tuple(sorted({seed for cell in self.measurements.values() for seed in cell}))

    @property
    def records(self) -> list[Record]:
        """All records that a measurement uses, each once."""
        return unique(record for cell in self.measurements.values() for one in cell.values() for record in one.records)

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of ``records``."""
        return tuple(record.id for record in self.records)

    def mean(self, key: str) -> SeedMean | None:
        """Return the mean of a column over seeds; None if it is not measured."""
        values = [one.value for one in self.measurements.get(key, {}).values()]
        return SeedMean.over(values) if values else None

    def interval(self, key: str, column: Column) -> Interval | None:
        """Return the 95 % interval of a column over seeds, or over images for one seed of an image fraction."""
        measured = list(self.measurements.get(key, {}).values())
        values = [one.value for one in measured]
        # Only percentages are bounded: seconds must not be cut to [0, 1].
        if not values or column.unit != "%":
            return student(values) if values else None
        n = measured[0].records[0].n if column.metric in IMAGE_FRACTIONS else None
        return accuracy_interval(values, n, [one.slack for one in measured])


@dataclass(frozen=True, kw_only=True)
class PaperBoard(Board[PaperRow]):
    """A table of the paper at one budget. A ``budget`` of None has the published values only."""

    manifest: Manifest
    comparisons: Comparisons


def paper_boards(
    manifests: Sequence[Manifest],
    records: Sequence[Record],
    load: LoadFlags,
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
    # Several tables have the same rows: one cache for all of them composes each row once.
    compose = CachedCompose()
    for manifest in manifests:
        if not manifest.columns:
            continue
        budgets = PAPER_BUDGETS if manifest.kind else (*PAPER_BUDGETS, "own")
        for budget, reference in product(budgets, (False, True)):
            known = by_budget.get((budget, reference), {})
            if not known or (budget == "smoke" and not include_smoke):
                continue
            # Composing every row of every table would take a minute.
            candidates = _candidates(manifest, budget, [same[0].training for same in known.values()])
            try:
                rows = identities(candidates, budget, compose)
            except UserError as error:
                if problems is None:
                    raise
                problem = f"{manifest.name}.yaml, budget {budget}: {error}"
                problems += [] if problem in problems else [problem]  # own records and reference records have the same
                continue
            board = _board(manifest, budget, {name: known.get(row, []) for name, row in rows.items()}, load)
            if board and reference:
                board = replace(board, name=f"{board.name}-{REFERENCE}", title=f"{board.title}, reference results")
            boards += [board] if board else []
    return boards


def published_board(manifest: Manifest) -> PaperBoard:
    """Build a board of the published values only."""
    rows = [PaperRow(row, _published(manifest, row), {}) for row in _ordered(manifest)]
    lines = [*([manifest.caption] if manifest.caption else []), *notes.publication_notes(manifest)]
    return make_board(manifest, None, rows, {}, lines)


def make_board(
    manifest: Manifest, budget: str | None, rows: Sequence[PaperRow], comparisons: Comparisons, lines: Sequence[str]
) -> PaperBoard:
    """Build a board from its rows and notes; a ``budget`` of None has the published values only."""
    return PaperBoard(
        name=f"{manifest.name}-{budget}" if budget else manifest.name,
        title=f"{manifest.title} ({budget_title(budget) if budget else 'values of the paper'})",
        budget=budget,
        columns=tuple(_columns(manifest, budget, rows, comparisons)),
        rows=tuple(rows),
        notes=tuple(lines),
        manifest=manifest,
        comparisons=comparisons,
    )


def _board(
    manifest: Manifest, budget: str, evaluated: Mapping[str, Sequence[Record]], load: LoadFlags
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
    rows = [
        PaperRow(row, _published(manifest, row), {key: measure(own.get(row.name, []), key, columns) for key in columns})
        for row in _ordered(manifest)
    ]
    # Smoke runs must not produce a significant difference by accident.
    comparisons = {} if budget == "smoke" else _compare(manifest, rows, load)
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
            if columns[key].metric in IMAGE_FRACTIONS
        ),
        *notes.bounded_notes(shown),
        *([notes.BEST] if any(column.metric == "best" for column in columns.values()) else []),
        f"Budget {budget}: {notes.BUDGET_NOTES[budget]}.{f' Our networks: {networks}.' if networks else ''}",
        *notes.comparison_notes(manifest, comparisons),
        *notes.publication_notes(manifest),
        *notes.training_notes(runs),
        *notes.provenance_notes(shown),
        *([f"Other evaluations of these runs, not used in this table: {record_ids(unused)}."] if unused else []),
        *([f"Evaluations of a part of the test set, not in this table: {record_ids(partial)}."] if partial else []),
    ]
    return make_board(manifest, budget, rows, comparisons, lines)


def _ordered(manifest: Manifest) -> list[ManifestRow]:
    """Return the rows in the manifest's order, each teacher before the first row that names it."""
    rows: dict[str, ManifestRow] = {}
    for row in manifest.rows:
        if row.teacher:
            teacher = manifest.teachers[row.teacher]
            rows.setdefault(teacher.name, teacher)
        rows[row.name] = row
    return list(rows.values())


def _published(manifest: Manifest, row: ManifestRow) -> Values:
    """Return the paper's values. A manifest without any uses the first of each row's other sources."""
    if any(other.paper for other in manifest.rows):
        return row.paper
    return next(iter(row.published.values()), {})


def _compare(manifest: Manifest, rows: Sequence[PaperRow], load: LoadFlags) -> dict[int, Comparison | str]:
    """Compare the rows of each claim whose rows are both measured, by the claim's position."""
    measured = {row.row.name: row.measurements for row in rows}
    comparisons: dict[int, Comparison | str] = {}
    for position, claim in enumerate(manifest.claims):
        better, than = measured[claim.better][claim.column], measured[claim.than][claim.column]
        if better and than:
            largest = 1.0 if manifest.columns[claim.column].unit == "%" else math.inf
            try:
                comparisons[position] = compare(better, than, load, largest=largest)
            except UserError as error:
                comparisons[position] = str(error)
    return comparisons


_VALUE = re.compile(r"(?!trainer\.|model\.title|task\.teacher\.|data\.source\.)\w+(\.\w+)+")
"""Keys of values rather than groups, without those that may differ between records of one row."""


def _candidates(manifest: Manifest, budget: str, trained: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return the manifest without the rows that certainly train none of the ``trained`` configurations.

    Composing the configuration of a row takes about 0.1 s, and comparing its overrides with the records almost none.
    """

    def agrees(training: Mapping[str, Any], key: str, value: str) -> bool:
        first, *rest = key.split(".")
        kept: Any = training.get(first)
        for part in rest:
            kept = kept.get(part) if isinstance(kept, Mapping) else None
        # Older records lack groups that were added since: they may still belong to the row.
        return first not in training or bool(OmegaConf.from_dotlist([f"value={value}"]).value == kept)

    def is_candidate(row: ManifestRow) -> bool:
        given: dict[str, str] = {}
        for text in ("recipe=quick", *row_overrides(manifest, row, budget)):
            key, _, value = text.lstrip("+~").partition("=")
            # Later overrides replace earlier ones, as in Hydra; ~ deletes.
            given.pop(key, None)
            if not text.startswith("~"):
                given[key] = value
        # Values that can be compared without composing.
        values = {key: text for key, text in given.items() if _VALUE.fullmatch(key) and "${" not in text}
        values["recipe_name"] = given["recipe"]
        return any(all(agrees(training, *item) for item in values.items()) for training in trained)

    return replace(manifest, rows=tuple(filter(is_candidate, manifest.runnable)))


# Columns.

PaperColumn = ColumnSpec[PaperRow]


def _columns(
    manifest: Manifest, budget: str | None, rows: Sequence[PaperRow], comparisons: Comparisons
) -> Iterator[PaperColumn]:
    """Yield the columns of a paper table at one budget. A ``budget`` of None leaves out ours."""
    yield PaperColumn(data={"row": lambda row: row.row.name, "method": lambda row: row.row.label})
    # What describes the rows, such as their architecture.
    yield from map(
        lambda key: PaperColumn.alike(key, key.lower().replace(" ", "_"), lambda row: row.row.show.get(key, "")),
        dict.fromkeys(key for row in rows for key in row.row.show),
    )
    yield PaperColumn(header="Method", cell=lambda row: row.row.label, essential=True)
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
        yield PaperColumn(
            header="n",
            align="r",
            cell=lambda row: ", ".join(map(str, sorted({r.n for r in row.records}))) or NONE,
            data={"n": lambda row: " ".join(map(str, sorted({r.n for r in row.records})))},
        )
        yield PaperColumn(
            header="Seeds",
            cell=lambda row: "quoted" if row.row.quoted else seeds_cell(row.seeds),
            data={"seed_list": lambda row: " ".join(map(str, row.seeds))},
        )
        yield from _claims(manifest, comparisons)


def _quantity(manifest: Manifest, key: str, budget: str | None, rows: Sequence[PaperRow]) -> Iterator[PaperColumn]:
    """Yield the published value; and ours and the difference, if the column is measured at this budget.

    An experiment whose values nobody has published has ours only.
    """
    column = manifest.columns[key]
    # The most important quantity: AutoAttack at the usual radius, else robust accuracy, else the first.
    robust = [name for name, other in manifest.columns.items() if other.metric == "robust"]
    standard = [
        name for name in robust if (manifest.columns[name].attacks, manifest.columns[name].eps) == ("standard", None)
    ]
    essential = key == next(iter((*standard, *robust, *manifest.columns)))
    cells, unit = Quantity(key, column), f" ({column.unit})" if column.unit else ""
    is_published = bool(manifest.kind) or any(row.published for row in rows)
    publisher = "paper" if any(row.row.paper for row in rows) else "published"
    # A column with metric "paper" is printed by the paper and never measured here.
    ours = not is_published or (budget is not None and column.metric != "paper")
    if is_published:
        yield PaperColumn(
            header=f"{column.header}, {publisher}{unit}" if ours else f"{column.header}{unit}",
            align="r",
            cell=cells.published,
            data={f"{key}_{publisher}": lambda row: f"{row.published[key]:g}" if key in row.published else ""},
            essential=essential,
        )
    if ours:
        yield PaperColumn(
            header=f"{column.header}, ours{unit}" if is_published else f"{column.header}{unit}",
            align="r",
            cell=cells.ours,
            data={
                **{f"{key}_{name}": cells.number(name) for name in ("mean", "std", "low", "high")},
                f"{key}_seeds": lambda row: str(len(row.measurements.get(key, {})) or ""),
            },
            essential=essential,
        )
    if ours and is_published and budget == "paper":
        measured = sum(other.metric != "paper" for other in manifest.columns.values())
        yield PaperColumn(
            header=f"{column.header}, difference" if measured <= WIDEST else None,
            align="r",
            cell=lambda row: cells.difference(row) or NONE,
            data={f"{key}_difference": cells.difference},
        )


@dataclass(frozen=True)
class Quantity:
    """The cells of one of the manifest's columns."""

    key: str
    column: Column

    def published(self, row: PaperRow) -> str:
        """The published value, with its standard deviation if that is published too."""
        std = row.row.paper_std.get(self.key)
        text = notes.published_value(row.published.get(self.key), self.column.unit)
        return text if std is None else f"{text} ± {notes.published_value(std, self.column.unit)}"

    def ours(self, row: PaperRow) -> str:
        """Mean, standard deviation and interval. The seeds are listed if the row has others as well."""
        mean, interval = row.mean(self.key), row.interval(self.key, self.column)
        if mean is None:
            return NONE
        if self.column.unit == "%":
            text, bounds = str(mean), interval_cell(interval)
        else:
            text = f"{mean.mean:.4g}" if mean.std is None else f"{mean.mean:.4g} ± {mean.std:.2g}"
            bounds = NONE if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        seeds = row.measurements[self.key]
        # A column evaluated for some of the row's seeds only must say so.
        fewer = "" if len(seeds) == len(row.seeds) else f" (of seed {', '.join(map(str, seeds))})"
        return text + ("" if interval is None else f" {bounds}") + fewer

    def number(self, name: str) -> Cell[PaperRow]:
        """Return the cell for machines of the ``mean``, its ``std``, or an end of the interval, ``low`` or ``high``."""

        def cell(row: PaperRow) -> str:
            mean, (low, high) = row.mean(self.key), row.interval(self.key, self.column) or (None, None)
            if mean is None:
                return ""
            return self.plain({"mean": mean.mean, "std": mean.std, "low": low, "high": high}[name])

        return cell

    def plain(self, value: float | None) -> str:
        """Return a measurement for machines: percent with two decimals, or a number in the column's unit."""
        if self.column.unit == "%":
            return plain_percent(value)
        return "" if value is None else f"{value:.6g}"

    def difference(self, row: PaperRow) -> str:
        """Ours minus the published value, in points or the column's unit; empty if one of them is missing."""
        ours, published = row.mean(self.key), row.published.get(self.key)
        return "" if ours is None or published is None else f"{ours.mean * self.column.scale - published:+.2f}"


def _claims(manifest: Manifest, comparisons: Comparisons) -> Iterator[PaperColumn]:
    """Yield, for machines, the comparisons in which a row is claimed to be better: ``claim_1_than``, …"""
    # A row can be claimed better than several others: each claim has its own columns.
    by_row = group(comparisons, lambda claim: manifest.claims[claim].better)

    def text(position: int, name: str) -> str:
        """Return what ``name`` is of the claim at ``position`` in the manifest."""
        claim, outcome = manifest.claims[position], comparisons[position]
        if name in ("than", "column"):
            return str(getattr(claim, name))
        if isinstance(outcome, str):
            return ""
        value: float = getattr(outcome, name)
        quantity = Quantity(claim.column, manifest.columns[claim.column])
        return f"{value:.3g}" if name == "p" else quantity.plain(value)

    def cell(place: int, name: str) -> Cell[PaperRow]:
        """Return the cell of a row's claim number ``place``, empty if it has fewer."""
        return lambda row: text(own[place], name) if place < len(own := by_row.get(row.row.name, [])) else ""

    for place in range(max(map(len, by_row.values()), default=0)):
        names = ("than", "column", "difference", "low", "high", "p")
        yield PaperColumn(data={f"claim_{place + 1}_{name}": cell(place, name) for name in names})
