"""Notes below a table of the paper: whose values it prints, where else they are published, how ours were computed."""

from collections.abc import Mapping, Sequence
from enum import Enum

from dkl.config.identity import COMPUTING
from dkl.config.schema import TrainerConfig
from dkl.manifests import Column, Manifest, ManifestRow
from dkl.records import Record
from dkl.reporting.boards.cells import NONE
from dkl.reporting.boards.paper.board import PaperRow
from dkl.reporting.grouping import group
from dkl.reporting.statistics.compare import Comparison

OURS = (
    "Our values are means over training seeds, ± their sample standard deviation, with the 95 % interval in brackets: "
    "Student's interval over seeds on these images, or Wilson's interval over n images if there is only one seed."
)
BEST = (
    "The accuracy of the best epoch is chosen on the test set, as is common, so it is optimistic; with one seed it has "
    "no interval."
)


def row_title(manifest: Manifest, row: ManifestRow) -> str:
    """Return the row's method, with what else describes the row if other rows have the same method."""
    rows = (*manifest.rows, *manifest.teachers.values())
    is_unique = sum(other.label == row.label for other in rows) == 1
    shown = [cell for cell in row.show.values() if cell not in ("", NONE)]
    return row.label if is_unique or not shown else f"{row.label} ({', '.join(shown)})"


def published_value(value: float | None, unit: str) -> str:
    """Return a published value: accuracies and points with two decimals, others with the digits they have."""
    if value is None:
        return NONE
    return f"{value:.2f}" if unit in ("%", "points") else f"{value:g}"


def publication_notes(manifest: Manifest) -> list[str]:
    """Say whose values the paper prints, and where else values of the same rows are published."""
    lines = []
    for reason, rows in group((row for row in manifest.rows if row.quoted), lambda row: row.quoted).items():
        lines.append(f"{_labels(rows)}: {reason}.")
    trained = [row for row in manifest.rows if not row.quoted]
    if others := [row for row in trained if row.origin == "quoted" and row.paper]:
        lines.append(f"The paper quotes its values of {_labels(others)} from other papers.")
    if unknown := [row for row in manifest.rows if row.origin == "unknown"]:
        lines.append(f"The paper does not say where its values of {_labels(unknown)} come from.")
    for row in (*manifest.teachers.values(), *manifest.rows):
        if row.published:
            lines.append(f"{row_title(manifest, row)} is also published with {_other_sources(manifest, row)}.")
        if row.note:
            lines.append(f"{row_title(manifest, row)}: {row.note.rstrip('.')}.")
    return [*lines, *manifest.notes]


def _labels(rows: Sequence[ManifestRow]) -> str:
    """List each method once."""
    return ", ".join(dict.fromkeys(row.label for row in rows))


def _other_sources(manifest: Manifest, row: ManifestRow) -> str:
    """List the row's other published values; equal ones together: ``Clean 65.76, AutoAttack 31.91 (README)``."""
    by_values = group(row.published, lambda source: tuple(row.published[source].items()))
    columns = manifest.columns
    texts = []
    for values, sources in by_values.items():
        text = ", ".join(f"{columns[key].header} {published_value(value, columns[key].unit)}" for key, value in values)
        texts.append(f"{text} ({', '.join(sources)})")
    return "; ".join(texts)


def comparison_notes(manifest: Manifest, comparisons: Mapping[int, Comparison | str]) -> list[str]:
    """Say for each claim of the paper that our runs can test what they show."""
    if not comparisons:
        return []
    rows = {row.name: row for row in manifest.rows}
    lines = [
        "Paired comparisons, on the same seeds and test images: our difference with its 95 % interval. One seed says "
        "nothing about other seeds, and p is not corrected for the number of comparisons."
    ]
    for position, outcome in comparisons.items():
        claim = manifest.claims[position]
        # Rows may share a method: their titles then also have what describes them.
        better, than = (row_title(manifest, rows[name]) for name in (claim.better, claim.than))
        column = manifest.columns[claim.column]
        lines.append(f"{column.header}, {better} minus {than}: {_outcome(outcome, column, claim.within)}.")
    return lines


def _outcome(outcome: Comparison | str, column: Column, within: float | None) -> str:
    if isinstance(outcome, str):
        return f"not compared: {outcome}"
    points = "points" if column.unit == "%" else column.unit
    values = (column.scale * value for value in (outcome.difference, outcome.low, outcome.high))
    difference, low, high = (f"{value:+.2f}" for value in values)
    if within is not None:
        verdict = _equality(outcome, within / column.scale, f"{within:g} {points}")
    elif not outcome.separates:
        verdict = "no significant difference"
    else:
        as_claimed = (outcome.difference > 0) == column.more_is_better
        verdict = "significant" if as_claimed else "significant, against the claim"
    seeds = f"seed{'s' if len(outcome.seeds) > 1 else ''} {', '.join(map(str, outcome.seeds))}"
    how = f"{outcome.test}, {seeds}, n = {outcome.n}"
    return f"{difference} {points} [{low}, {high}], p = {outcome.p:.2g} ({how}): {verdict}"


def _equality(outcome: Comparison, margin: float, words: str) -> str:
    if outcome.is_within(margin):
        return f"the same up to {words}"
    if outcome.is_beyond(margin):
        return f"they differ by more than {words}, against the claim"
    return f"neither the same up to {words} nor different by more"


def teacher_notes(manifest: Manifest, rows: Sequence[PaperRow]) -> list[str]:
    """Name the rows whose seeds had different teachers, as far as the records say."""
    lines = []
    for row in rows:
        known = [record for record in row.records if record.teacher]
        teachers = group(known, lambda record: str(record.teacher)[:8])
        if len(teachers) > 1:
            texts = (f"{name} (seed {', '.join(str(r.seed) for r in own)})" for name, own in teachers.items())
            lines.append(f"{row_title(manifest, row.row)} had different teachers: {', '.join(texts)}.")
    return lines


def computing_notes(manifest: Manifest, rows: Sequence[PaperRow]) -> list[str]:
    """Name the runs with shares for BatchNorm or in another precision than float32, which do not make another row."""
    titles = {row.row.name: row_title(manifest, row.row) for row in rows}
    runs = {(row.row.name, one.seed): one for row in rows for one in row.records if one.seed is not None}
    changed: dict[str, dict[str, list[int]]] = {}
    for (name, seed), record in runs.items():
        for setting in _computing(record):
            changed.setdefault(setting, {}).setdefault(name, []).append(seed)
    lines = []
    for setting, found in changed.items():
        texts = (f"{titles[name]} (seed {', '.join(map(str, sorted(seeds)))})" for name, seeds in found.items())
        every = sum(map(len, found.values())) == len(runs)
        lines.append(f"Trained with {setting}: {'all rows' if every else ', '.join(texts)}.")
    return lines


def _computing(record: Record) -> list[str]:
    """The settings of how ``record`` was computed that differ from their defaults."""
    trainer, default, found = record.training.get("trainer") or {}, TrainerConfig(), []
    for key in COMPUTING:
        usual = getattr(default, key)
        # Records hold plain values, the schema enumerations.
        usual = usual.value if isinstance(usual, Enum) else usual
        if (value := trainer.get(key, usual)) != usual:
            # On however many devices: as ``devices`` a record has in how many parts BatchNorm saw a batch.
            found.append(f"trainer.{'batch_norm_share' if key == 'devices' else key}={value}")
    return found
