"""Builds the paper's tables: one board per manifest and budget that has records of its rows.

A record belongs to a row if both train the same, whatever the record's method is called. Budgets are never mixed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from omegaconf import OmegaConf

from dkl.config import CachedCompose
from dkl.errors import UserError
from dkl.manifests import Manifest, ManifestRow, identities, own_sizes, row_overrides
from dkl.manifests.manifest import Values
from dkl.records import Record
from dkl.reporting.boards.cells import budget_title
from dkl.reporting.boards.notes import BUDGET_NOTES, bounded_notes, distinct, equal_seed_notes, provenance_notes
from dkl.reporting.boards.paper import notes
from dkl.reporting.boards.paper.board import PaperBoard, PaperRow
from dkl.reporting.boards.paper.columns import paper_columns
from dkl.reporting.grouping import group
from dkl.reporting.names import record_ids
from dkl.reporting.reference import REFERENCE, is_reference
from dkl.reporting.statistics.compare import Comparison, LoadFlags, compare
from dkl.reporting.statistics.measurements import IMAGE_FRACTIONS, measure

PAPER_BUDGETS = ("paper", "mini", "smoke")
"""Sizes of the paper's experiments. Budget ``own`` has no row in the paper, but in an experiment of its own sizes."""


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
            found = {name: known.get(row_identity, []) for name, row_identity in rows.items()}
            # Evaluations of a part of the test set count in columns of so many images only.
            sized = manifest if own_sizes(manifest, budget) else _of_all_images(manifest)
            parts = {column.n for column in sized.columns.values()}
            own = {name: [each for each in same if not each.partial or each.n in parts] for name, same in found.items()}
            if any(own.values()):
                partial = [each for name, same in found.items() for each in same if each not in own[name]]
                board = _board(sized, budget, own, partial, load)
                boards.append(_as_reference(board) if reference else board)
    return boards


def _of_all_images(manifest: Manifest) -> Manifest:
    """Return ``manifest`` with columns of all test images: parts of them are evaluated at its own sizes only."""
    columns = {key: replace(column, n=None) for key, column in manifest.columns.items()}
    return replace(manifest, columns=columns)


def _as_reference(board: PaperBoard) -> PaperBoard:
    """Return a board of reference records with a name and a title that say so."""
    return replace(board, name=f"{board.name}-{REFERENCE}", title=f"{board.title}, reference results")


def published_board(manifest: Manifest) -> PaperBoard:
    """Build a board of the published values only."""
    rows = tuple(PaperRow(row, _published(manifest, row), {}) for row in _ordered(manifest))
    lines = [*([manifest.caption] if manifest.caption else []), *notes.publication_notes(manifest)]
    return make_board(manifest, None, rows, {}, lines)


def make_board(
    manifest: Manifest,
    budget: str | None,
    rows: Sequence[PaperRow],
    comparisons: Mapping[int, Comparison | str],
    lines: Sequence[str],
) -> PaperBoard:
    """Build a board from its rows and notes; a ``budget`` of None has the published values only."""
    return PaperBoard(
        name=f"{manifest.name}-{budget}" if budget else manifest.name,
        title=f"{manifest.title} ({budget_title(budget) if budget else 'values of the paper'})",
        budget=budget,
        columns=paper_columns(manifest, budget, rows, comparisons),
        rows=tuple(rows),
        notes=tuple(lines),
        manifest=manifest,
        comparisons=comparisons,
    )


def _board(
    manifest: Manifest, budget: str, own: Mapping[str, Sequence[Record]], partial: Sequence[Record], load: LoadFlags
) -> PaperBoard:
    """Build the board of ``own``, the records of each row by its name; the ``partial`` ones are only named."""
    columns = manifest.columns
    rows = [
        PaperRow(row, _published(manifest, row), {key: measure(own.get(row.name, []), key, columns) for key in columns})
        for row in _ordered(manifest)
    ]
    # Smoke runs must not produce a significant difference by accident.
    comparisons = {} if budget == "smoke" else _compare(manifest, rows, load)
    shown = [record for row in rows for record in row.records]
    lines = [
        *([manifest.caption] if manifest.caption else []),
        notes.OURS,
        *equal_seed_notes(
            [one.value for one in cell.values()]
            for row in rows
            for key, cell in row.measurements.items()
            if columns[key].metric in IMAGE_FRACTIONS
        ),
        *bounded_notes(shown),
        *([notes.BEST] if any(column.metric == "best" for column in columns.values()) else []),
        f"Budget {budget}: {BUDGET_NOTES[budget]}.{_networks(budget, shown)}",
        *notes.comparison_notes(manifest, comparisons),
        *notes.publication_notes(manifest),
        *notes.teacher_notes(manifest, rows),
        *notes.computing_notes(manifest, rows),
        *provenance_notes(shown),
        *_unused([record for records in own.values() for record in records], shown),
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
    found: dict[int, Comparison | str] = {}
    for position, claim in enumerate(manifest.claims):
        better, than = measured[claim.better][claim.column], measured[claim.than][claim.column]
        if better and than:
            largest = 1.0 if manifest.columns[claim.column].unit == "%" else math.inf
            try:
                found[position] = compare(better, than, load, largest=largest)
            except UserError as error:
                found[position] = str(error)
    return found


def _networks(budget: str, shown: Sequence[Record]) -> str:
    """Name the networks of our runs, if they are not the paper's."""
    if budget == "paper" or not shown:
        return ""
    return f" Our networks: {distinct(record.architecture for record in shown)}."


def _unused(own: Sequence[Record], shown: Sequence[Record]) -> list[str]:
    """Name the evaluations of these runs that no column uses."""
    used = {record.id for record in shown}
    others = [record for record in own if record.id not in used]
    return [f"Other evaluations of these runs, not used in this table: {record_ids(others)}."] if others else []


_VALUE = re.compile(r"(?!trainer\.|model\.title|task\.teacher\.|data\.source\.)\w+(\.\w+)+")
"""Keys of values rather than groups, without those that may differ between records of one row."""


def _candidates(manifest: Manifest, budget: str, trained: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return the manifest without the rows that certainly train none of the ``trained`` configurations.

    Composing the configuration of a row takes about 0.1 s, and comparing its overrides with the records almost none.
    """

    def is_candidate(row: ManifestRow) -> bool:
        given: dict[str, str] = {}
        for text in ("recipe=quick", *row_overrides(manifest, row, budget)):
            key, _, value = text.lstrip("+~").partition("=")
            # Later overrides replace earlier ones, as in Hydra; ~ deletes.
            given.pop(key, None)
            if not text.startswith("~"):
                given[key] = value
        values = [("recipe_name", given["recipe"]), *filter(_is_value, given.items())]
        return any(all(_agrees(training, *item) for item in values) for training in trained)

    return replace(manifest, rows=tuple(filter(is_candidate, manifest.runnable)))


def _is_value(item: tuple[str, str]) -> bool:
    """Whether a key and its text set a value that can be compared without composing."""
    key, text = item
    return bool(_VALUE.fullmatch(key)) and "${" not in text


def _agrees(training: Mapping[str, Any], key: str, value: str) -> bool:
    """Whether ``training`` has the ``value`` of an override, or has nothing at all of its group."""
    first, *rest = key.split(".")
    found: Any = training.get(first)
    for part in rest:
        found = found.get(part) if isinstance(found, Mapping) else None
    # Older records lack groups that were added since: they may still belong to the row.
    return first not in training or bool(OmegaConf.from_dotlist([f"value={value}"]).value == found)
