"""Notes below a board: what its numbers are, where they come from, and what was left out.

Those of the paper's tables also say whose values they print, where else they are published, and what comparisons show.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from dkl.config.identity import COMPUTING
from dkl.config.schema import TrainerConfig
from dkl.manifests import Column, Manifest, ManifestRow
from dkl.records import Record
from dkl.records.metrics import METRICS
from dkl.reporting.boards import NONE
from dkl.reporting.grouping import created_at, group, is_reference, seed_key
from dkl.reporting.statistics import Comparison, Shift, has_spread
from dkl.threat import AUTOATTACK

BUDGET_NOTES = {
    "own": "your own settings, which are no row of the paper",
    "paper": "the published recipe at full size",
    "mini": "the paper's recipe reduced to what a CPU can train; not comparable with published values",
    "smoke": "no result; it only shows that the code runs",
}

PUBLISHED = (
    "Rows whose source is a table or RobustBench are published values that were not run here: those of the paper's "
    "table and of RobustBench, in one row if they agree. There ‡ marks training with synthetic images."
)
OURS = (
    "Our values are means over training seeds, ± their sample standard deviation, with the 95 % interval in brackets: "
    "Student's interval over seeds on these images, or Wilson's interval over n images if there is only one seed."
)
WEIGHTS = (
    "Published weights were trained by others and evaluated here, with the 95 % interval over images in brackets; no "
    "value of ours includes them."
)
BEST = (
    "The accuracy of the best epoch is chosen on the test set, as is common, so it is optimistic; with one seed it has "
    "no interval."
)


def evaluation_notes(shown: Sequence[Record]) -> list[str]:
    """Return the notes of a board of the records ``shown``, which all have attacks or all have none."""
    return (_accuracy_notes if shown[0].accuracy_only else _attack_notes)(shown)


def _attack_notes(shown: Sequence[Record]) -> list[str]:
    lines = _number_notes(shown, "robust")
    if any(record.is_autoattack for record in shown):
        lines.append(f"AutoAttack is the standard suite: {', '.join(AUTOATTACK)}.")
    lines += bounded_notes(shown)
    settings = (
        " and ".join(name if value is True else f"{name}={value}" for name, value in record.search.items())
        for record in shown
        if record.search
    )
    if searches := distinct(settings):
        lines.append(
            f"Some attacks searched in other rounding, to be faster ({searches}); the network itself classified what "
            "they found."
        )
    if not all(record.is_autoattack for record in shown):
        lines.append(
            "Rows with fewer attacks than AutoAttack come last and are unranked: their robust accuracy is optimistic."
        )
    return [*lines, *provenance_notes(shown)]


def bounded_notes(shown: Sequence[Record]) -> list[str]:
    """Explain values and intervals of bounded AutoAttack, if any of the records ``shown`` has it."""
    if not any(record.bound for record in shown):
        return []
    return [
        "Bounded AutoAttack ran fab-t and square on a sample, and its value counts only the images fooled there. With "
        "95 % confidence per seed, the accuracy under AutoAttack is within its bounds. The 95 % interval of the value "
        "begins lower by the distance from the value to the lower bound."
    ]


def equal_seed_notes(accuracies: Iterable[Sequence[float]]) -> list[str]:
    """Say whose interval is shown if all seeds of some row have equal ``accuracies``."""
    if not any(len(values) > 1 and not has_spread(values) for values in accuracies):
        return []
    return ["Seeds of equal accuracy say nothing about other seeds: their interval is Wilson's over n images."]


def _accuracy_notes(shown: Sequence[Record]) -> list[str]:
    """Return the notes of an accuracy board of the records ``shown``."""
    masks = any(record.segmented for record in shown)
    lines = _number_notes(shown, "mean IoU" if masks else "top-1")
    if masks:
        lines.append(
            "Mean IoU is over the classes that occur, of pixels summed over all images; one seed has no interval. "
            f"Predicted by {distinct(record.segmented.prediction for record in shown if record.segmented)}."
        )
    if any(record.best is not None for record in shown):
        lines.append(
            "* Highest top-1 accuracy after any epoch, chosen on the test set as is common, so it is optimistic. All "
            "other values belong to the weights given in the table."
        )
    if any(record.shots for record in shown):
        lines.append(
            "Many, medium, few: mean accuracy of the classes with more than 100, 20 to 100 and fewer than 20 training "
            "images."
        )
    if any(record.corruptions for record in shown):
        lines.append("Corrupted: mean accuracy over fifteen common corruptions, each in five severities.")
    return [*lines, *provenance_notes(shown)]


def _number_notes(shown: Sequence[Record], accuracy: str) -> list[str]:
    """Explain the numbers and their budget; ``accuracy`` names the one that has an interval."""
    budget = shown[0].budget
    return [
        "Accuracies in percent of n test images. ± is the sample standard deviation over training seeds. The 95 % "
        f"interval is that of the {accuracy} accuracy: Student's interval over seeds on these images, or Wilson's "
        "interval over n images if there is only one seed.",
        f"Budget {budget}: {BUDGET_NOTES[budget]}.",
    ]


def provenance_notes(shown: Sequence[Record]) -> list[str]:
    """Say what was trained on, which weights were evaluated, and by what."""
    lines = []
    if any(map(is_reference, shown)):
        lines.append("Reference results ship with the project and were not run here; no row averages them with ours.")
    if any(record.additional_data for record in shown):
        lines.append("† Trained with additional data.")
    if synthetic := distinct(record.synthetic for record in shown if record.synthetic):
        lines.append(f"‡ Also trained with synthetic images: {synthetic}.")
    lines.append(f"Weights: {distinct(record.weights for record in shown)}.")
    # Equal n suggests equal images, so say if that is wrong.
    if any(len({record.data_sha256 for record in same}) > 1 for same in group(shown, lambda r: r.n).values()):
        lines.append("Some rows with equal n use different test images: their fingerprints differ.")
    seeds, sizes = distinct(r.evaluation_seed for r in shown), distinct(r.batch_size for r in shown)
    lines.append(f"Evaluation seed: {seeds}; batch size: {sizes}.")
    if hardware := _merge([record.hardware for record in shown]):
        lines.append(f"Hardware: {hardware}.")
    # Ten digits of a commit's hash, and ``-dirty`` if it ends so.
    short = [re.sub(r"^([^-]{,10})[^-]*", r"\1", record.git_commit or "") for record in shown]
    commits = [{"commit": commit} if commit else {} for commit in short]
    if versions := "; ".join(filter(None, (_merge([record.versions for record in shown]), _merge(commits)))):
        lines.append(f"Versions: {versions}.")
    warnings = (f"Warning, {_run_title(record)}: {text}" for record in shown for text in record.warnings)
    return [*lines, *dict.fromkeys(warnings)]


def left_out(records: Iterable[Record], smoke: int) -> list[str]:
    """Name older evaluations of the same row and seed among ``records``, and count ``smoke`` records elsewhere."""
    lines = []
    for same in group(records, seed_key).values():
        if len(same) > 1:
            newest = max(same, key=created_at)
            differ = " of different weights" if len({record.checkpoint_sha256 for record in same}) > 1 else ""
            lines.append(
                f"{_run_title(newest)}: {len(same)} evaluations{differ}; the newest counts ({newest.created})."
            )
    if smoke:
        count = "1 record is" if smoke == 1 else f"{smoke} records are"
        lines.append(f"{count} left out: budget smoke is {BUDGET_NOTES['smoke']}.")
    return lines


def distinct(values: Iterable[Any]) -> str:
    """List each value once, sorted; numbers by size."""
    unique = {str(value): value for value in values}
    # As text, 10 would sort before 2.
    numeric = all(isinstance(value, int | float) for value in unique.values())
    return ", ".join(sorted(unique, key=unique.__getitem__ if numeric else None))


def _merge(parts: Sequence[Mapping[str, Any]]) -> str:
    """List every key with its distinct values, such as ``device cpu, cuda; cores 2``."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return "; ".join(f"{key} {distinct(part[key] for part in parts if key in part)}" for key in keys)


def _run_title(record: Record) -> str:
    which = f"checkpoint {record.checkpoint_sha256[:8]}" if record.seed is None else f"seed {record.seed}"
    return f"{record.method} ({record.architecture}, {which})"


# Notes of the paper's tables.


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

    def labels(rows: Iterable[ManifestRow]) -> str:
        return ", ".join(dict.fromkeys(row.label for row in rows))

    lines = []
    for reason, rows in group((row for row in manifest.rows if row.quoted), lambda row: row.quoted).items():
        lines.append(f"{labels(rows)}: {reason}.")
    if others := labels(row for row in manifest.rows if row.origin == "quoted" and row.paper and not row.quoted):
        lines.append(f"The paper quotes its values of {others} from other papers.")
    if unknown := labels(row for row in manifest.rows if row.origin == "unknown"):
        lines.append(f"The paper does not say where its values of {unknown} come from.")
    columns = manifest.columns
    for row in (*manifest.teachers.values(), *manifest.rows):
        texts = []  # equal values together: Clean 65.76, AutoAttack 31.91 (README)
        for values, sources in group(row.published, lambda s: tuple(row.published[s].items())).items():  # noqa: B023
            cells = (f"{columns[key].header} {published_value(value, columns[key].unit)}" for key, value in values)
            texts.append(f"{', '.join(cells)} ({', '.join(sources)})")
        if texts:
            lines.append(f"{row_title(manifest, row)} is also published with {'; '.join(texts)}.")
        if row.note:
            lines.append(f"{row_title(manifest, row)}: {row.note.rstrip('.')}.")
    return [*lines, *manifest.notes]


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
    if within is None:
        words = ("significant", "significant, against the claim", "no significant difference")
        agrees = outcome.agrees(None, column.more_is_better)
    else:
        margin = f"{within:g} {points}"
        words = (
            f"the same up to {margin}",
            f"they differ by more than {margin}, against the claim",
            f"neither the same up to {margin} nor different by more",
        )
        agrees = outcome.agrees(within / column.scale, column.more_is_better)
    verdict = dict(zip((True, False, None), words, strict=True))[agrees]
    seeds = f"seed{'s' if len(outcome.seeds) > 1 else ''} {', '.join(map(str, outcome.seeds))}"
    how = f"{outcome.test}, {seeds}, n = {outcome.n}"
    return f"{difference} {points} [{low}, {high}], p = {outcome.p:.2g} ({how}): {verdict}"


def shift_texts(manifest: Manifest, shifts: Sequence[Mapping[str, Shift]]) -> list[str]:
    """Say how far the chosen rows of the manifest's frontier lie above its first line at equal x, in each panel."""
    texts = []
    for (x, y), panel in zip(manifest.figure.get("panels", ()), shifts, strict=False):  # none of smoke runs
        words, first = METRICS[manifest.columns[x].metric].words, next(iter(manifest.figure["lines"]))
        above = [
            f"{label} {100 * one.difference:+.2f} [{100 * one.low:+.2f}, {100 * one.high:+.2f}] points "
            f"({100 * one.x:.1f} %)"
            for label, one in panel.items()
        ]
        one_seed = " of one seed" * any(one.seeds == 1 for one in panel.values())
        if above:
            texts.append(
                f"{manifest.columns[y].title}, minus that of {first} at equal {words} accuracy: {', '.join(above)}. "
                f"Interpolated on the frontier of {first}; 95 % intervals over test images{one_seed}."
            )
    return texts


Runs = Sequence[tuple[str, Sequence[Record]]]
"""The title of each row, and its records."""


def training_notes(runs: Runs) -> list[str]:
    """Name the rows whose seeds had different teachers, as far as records say, and the runs computed in another way.

    Shares for BatchNorm and another precision than float32 do not make another row.
    """
    lines = []
    for title, records in runs:
        teachers = group((record for record in records if record.teacher), lambda record: str(record.teacher)[:8])
        if len(teachers) > 1:
            texts = (f"{name} (seed {', '.join(str(r.seed) for r in same)})" for name, same in teachers.items())
            lines.append(f"{title} had different teachers: {', '.join(texts)}.")
    count, changed = 0, dict[str, dict[int, list[int]]]()
    for row, (_, records) in enumerate(runs):
        by_seed = {record.seed: record for record in records if record.seed is not None}
        count += len(by_seed)
        for seed, record in by_seed.items():
            for setting in _computing(record):
                changed.setdefault(setting, {}).setdefault(row, []).append(seed)
    for setting, rows in changed.items():
        texts = (f"{runs[row][0]} (seed {', '.join(map(str, sorted(seeds)))})" for row, seeds in rows.items())
        every = sum(map(len, rows.values())) == count
        lines.append(f"Trained with {setting}: {'all rows' if every else ', '.join(texts)}.")
    return lines


def _computing(record: Record) -> list[str]:
    """The settings of how ``record`` was computed that differ from their defaults."""
    trainer, default, settings = record.training.get("trainer") or {}, TrainerConfig(), []
    for key in COMPUTING:
        usual = getattr(default, key)
        # Records hold plain values, the schema enumerations.
        usual = usual.value if isinstance(usual, Enum) else usual
        if (value := trainer.get(key, usual)) != usual:
            # On however many devices: as ``devices`` a record has in how many parts BatchNorm saw a batch.
            settings.append(f"trainer.{'batch_norm_share' if key == 'devices' else key}={value}")
    return settings
