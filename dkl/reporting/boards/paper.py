"""The paper's tables with ours beside them: one board a manifest and budget that has records of its rows.

A record is of a row where the hashes of what they train agree, whatever the record's method is called. Budgets never
mix.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from dkl.errors import UserError
from dkl.manifests import Manifest, ManifestRow, identities
from dkl.manifests.jobs import Composer
from dkl.manifests.manifest import Figures
from dkl.records import Record
from dkl.reporting.boards import footnotes, notes
from dkl.reporting.boards.paper_board import Cells, PaperBoard, PaperRow
from dkl.reporting.grouping import group
from dkl.reporting.names import display_architecture
from dkl.reporting.statistics.compare import Comparison, LoadFlags, compare
from dkl.reporting.statistics.measured import measure

BUDGETS = ("paper", "mini", "smoke")
"""Sizes of the paper's experiments: settings of one's own are no row of a table."""

BEST = (
    "The best epoch's accuracy is chosen on the test set, as the field does, and so is optimistic; that of one seed "
    "has no interval."
)


def _ordered(manifest: Manifest) -> list[ManifestRow]:
    """Rows in the manifest's order, each teacher before the first row that names it."""
    rows: dict[str, ManifestRow] = {}
    for row in manifest.rows:
        if row.teacher:
            teacher = manifest.teachers[row.teacher]
            rows.setdefault(teacher.name, teacher)
        rows[row.name] = row
    return list(rows.values())


def _possible(manifest: Manifest, budget: str, trained: Sequence[Mapping[str, Any]]) -> Manifest:
    """The manifest less the rows that nothing in ``trained`` can be: what a row trains is slow to compose."""

    def possible(row: ManifestRow) -> bool:
        overrides = ("recipe=quick", *manifest.overrides, *row.overrides, *manifest.at.get(budget, ()))
        given = dict(text.split("=", 1) for text in overrides)
        values = [("recipe_name", given["recipe"]), *(item for item in given.items() if _VALUE.fullmatch(item[0]))]
        return any(all(_agrees(training, *item) for item in values) for training in trained)

    return replace(manifest, rows=tuple(filter(possible, manifest.runnable)))


_VALUE = re.compile(r"(?!trainer\.)\w+(\.\w+)+")
"""Keys of values, not of groups; those of ``trainer`` may say where a run computes, which a row does not fix."""


def _agrees(training: Mapping[str, Any], key: str, value: str) -> bool:
    """Whether ``training`` has the ``value`` of an override, or keeps nothing of its group."""
    first, *rest = key.split(".")
    found: Any = training.get(first)
    for part in rest:
        found = found.get(part) if isinstance(found, Mapping) else None
    return first not in training or bool(OmegaConf.from_dotlist([f"value={value}"]).value == found)


def _printed(manifest: Manifest, row: ManifestRow) -> Figures:
    """The paper's figures; in a manifest that has none at all, those that stand first elsewhere."""
    if any(other.paper for other in manifest.rows):
        return row.paper
    return next(iter(row.published.values()), {})


def _board(manifest: Manifest, budget: str, own: Mapping[str, Sequence[Record]], load: LoadFlags) -> PaperBoard:
    """The board of the records ``own`` by row."""
    columns = manifest.columns
    rows = tuple(
        PaperRow(row, _printed(manifest, row), {key: measure(own.get(row.name, []), key, columns) for key in columns})
        for row in _ordered(manifest)
    )
    comparisons = {} if budget == "smoke" else _compare(manifest, {row.row.name: row.cells for row in rows}, load)
    shown = [record for row in rows for record in row.records]
    lines = [
        *([manifest.caption] if manifest.caption else []),
        "Ours are means over training seeds, ± their sample standard deviation, with a 95 % interval in brackets: "
        "Student's over seeds, or Wilson's over n images for the accuracy of one seed.",
        *([BEST] if any(column.metric == "best" for column in columns.values()) else []),
        f"Budget {budget}: {notes.BUDGET_NOTES[budget]}.{_networks(budget, shown)}",
        *footnotes.of_comparisons(manifest, comparisons),
        *footnotes.of_the_paper(manifest),
        *footnotes.of_teachers(manifest, [(row.row, row.records) for row in rows]),
        *footnotes.of_arithmetic(manifest, [(row.row, row.records) for row in rows]),
        *notes.sources(shown),
        *_left_out([record for records in own.values() for record in records], shown),
    ]
    return PaperBoard(manifest=manifest, budget=budget, rows=rows, comparisons=comparisons, notes=tuple(lines))


def _compare(manifest: Manifest, cells: Mapping[str, Cells], load: LoadFlags) -> dict[int, Comparison | str]:
    """The claims whose rows both are measured, by number."""
    found: dict[int, Comparison | str] = {}
    for number, claim in enumerate(manifest.claims):
        better, than = cells[claim.better][claim.column], cells[claim.than][claim.column]
        if better and than:
            try:
                found[number] = compare(better, than, load)
            except UserError as error:
                found[number] = str(error)
    return found


def _networks(budget: str, shown: Sequence[Record]) -> str:
    """Which networks ours are, where they are not the paper's."""
    if budget == "paper" or not shown:
        return ""
    return f" Networks of ours: {notes.distinct(display_architecture(record.architecture) for record in shown)}."


def _left_out(own: Sequence[Record], shown: Sequence[Record]) -> list[str]:
    """Evaluations of the rows' runs that no column takes."""
    used = {record.id for record in shown}
    others = [record.id for record in own if record.id not in used]
    return [f"Other evaluations of these runs, not in this table: {', '.join(others)}."] if others else []


def paper_boards(
    manifests: Sequence[Manifest], records: Sequence[Record], load: LoadFlags, include_smoke: bool = False
) -> list[PaperBoard]:
    """One board a manifest with columns and budget that has records of any of its rows; of budget ``smoke`` only with
    ``include_smoke``. ``load`` gives the flags beside a record.
    """
    trained = [record for record in records if record.training and record.seed is not None]
    known = {budget: group(members, lambda r: r.row) for budget, members in group(trained, lambda r: r.budget).items()}
    boards: list[PaperBoard] = []
    compose = Composer()
    for manifest in manifests:
        if not manifest.columns:
            continue
        for budget in BUDGETS:
            here = known.get(budget, {})
            if not here or (budget == "smoke" and not include_smoke):
                continue
            possible = _possible(manifest, budget, [members[0].training for members in here.values()])
            own = {name: here.get(found, []) for name, found in identities(possible, budget, compose).items()}
            if any(own.values()):
                boards.append(_board(manifest, budget, own, load))
    return boards


def blank(manifest: Manifest) -> PaperBoard:
    """The paper's figures alone."""
    rows = tuple(PaperRow(row, _printed(manifest, row), {}) for row in _ordered(manifest))
    lines = [*([manifest.caption] if manifest.caption else []), *footnotes.of_the_paper(manifest)]
    return PaperBoard(manifest=manifest, budget=None, rows=rows, comparisons={}, notes=tuple(lines))
