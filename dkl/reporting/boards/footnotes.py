"""What stands under a table of the paper: whose figures it prints, where else they stand, how ours were computed."""

from collections.abc import Mapping, Sequence
from enum import Enum

from dkl.config.identity import COMPUTING
from dkl.config.schema import TrainerConfig
from dkl.manifests import Manifest, ManifestRow
from dkl.records import Record
from dkl.reporting.grouping import group
from dkl.reporting.statistics.compare import Comparison


def named(manifest: Manifest, row: ManifestRow) -> str:
    """The row's method, and what else it shows where the method is not the only one of its label."""
    rows = (*manifest.rows, *manifest.teachers.values())
    alone = sum(other.label == row.label for other in rows) == 1
    shown = [cell for cell in row.show.values() if cell not in ("", "\N{EN DASH}")]
    return row.label if alone or not shown else f"{row.label} ({', '.join(shown)})"


def figure(value: float | None, unit: str) -> str:
    """A figure of the paper: accuracies and points with two decimals, others with the digits they have."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2f}" if unit in ("%", "points") else f"{value:g}"


def of_the_paper(manifest: Manifest) -> list[str]:
    """Whose figures the paper's are, and where they are published with which value."""
    lines = []
    for reason, rows in group((row for row in manifest.rows if row.quoted), lambda row: row.quoted).items():
        lines.append(f"{_labels(rows)}: {reason}.")
    trained = [row for row in manifest.rows if not row.quoted]
    if others := [row for row in trained if row.origin == "quoted" and row.paper]:
        lines.append(f"The paper quotes its figures of {_labels(others)} from elsewhere.")
    if unknown := [row for row in manifest.rows if row.origin == "unknown"]:
        lines.append(f"The paper does not say whose its figures of {_labels(unknown)} are.")
    for row in (*manifest.teachers.values(), *manifest.rows):
        if row.published:
            lines.append(f"{named(manifest, row)} is published with {_published(manifest, row)}.")
        if row.note:
            lines.append(f"{named(manifest, row)}: {row.note.rstrip('.')}.")
    return [*lines, *manifest.notes]


def _labels(rows: Sequence[ManifestRow]) -> str:
    """Each method once."""
    return ", ".join(dict.fromkeys(row.label for row in rows))


def _published(manifest: Manifest, row: ManifestRow) -> str:
    """Where else the row's figures stand, those that agree together: ``Clean 65.76, AutoAttack 31.91 (README)``."""
    places = group(row.published, lambda place: tuple(row.published[place].items()))
    columns = manifest.columns
    texts = []
    for figures, where in places.items():
        values = ", ".join(f"{columns[key].title} {figure(value, columns[key].unit)}" for key, value in figures)
        texts.append(f"{values} ({', '.join(where)})")
    return "; ".join(texts)


def of_comparisons(manifest: Manifest, found: Mapping[int, Comparison | str]) -> list[str]:
    """Each claim of the paper that ours can be asked about, by its number, and what ours say."""
    if not found:
        return []
    rows = {row.name: row for row in manifest.rows}
    lines = [
        "Compared in pairs, the same seeds and test images: the difference of ours with its 95 % interval. One seed "
        "says nothing of other seeds; p is not corrected for the number of comparisons."
    ]
    for number, outcome in found.items():
        claim = manifest.claims[number]
        better, than = (named(manifest, rows[name]) for name in (claim.better, claim.than))
        column = manifest.columns[claim.column]
        lines.append(f"{column.title}, {better} over {than}: {_outcome(outcome, column.unit)}.")
    return lines


def _outcome(outcome: Comparison | str, unit: str) -> str:
    if isinstance(outcome, str):
        return f"not compared: {outcome}"
    scale, points = (100, "points") if unit == "%" else (1, unit)
    difference, low, high = (f"{scale * value:+.2f}" for value in (outcome.difference, outcome.low, outcome.high))
    wrong = (outcome.difference > 0) != (unit == "%")  # of what is not an accuracy, such as seconds, less is better
    if not outcome.separates:
        verdict = "does not separate them"
    else:
        verdict = "the other way round" if wrong else "separates them"
    seeds = f"seed{'s' if len(outcome.seeds) > 1 else ''} {', '.join(map(str, outcome.seeds))}"
    how = f"{outcome.test}, {seeds}, n = {outcome.n}"
    return f"{difference} {points} [{low}, {high}], p = {outcome.p:.2g} ({how}): {verdict}"


def of_teachers(manifest: Manifest, rows: Sequence[tuple[ManifestRow, Sequence[Record]]]) -> list[str]:
    """Rows whose seeds were taught by different networks, as far as records say."""
    lines = []
    for row, records in rows:
        taught = group((record for record in records if record.teacher), lambda record: str(record.teacher)[:8])
        if len(taught) > 1:
            texts = (f"{name} (seed {', '.join(str(record.seed) for record in own)})" for name, own in taught.items())
            lines.append(f"{named(manifest, row)} had different teachers: {', '.join(texts)}.")
    return lines


def of_arithmetic(manifest: Manifest, rows: Sequence[tuple[ManifestRow, Sequence[Record]]]) -> list[str]:
    """Runs of a row on other devices or in other arithmetic than one device and float32, which a row does not fix."""
    plain, lines = TrainerConfig(), []
    for row, records in rows:
        others: dict[str, set[int]] = {}
        for record in records:
            for key in COMPUTING:
                default = getattr(plain, key)
                default = default.value if isinstance(default, Enum) else default
                value = record.training["trainer"].get(key, default)
                if value != default and record.seed is not None:
                    others.setdefault(f"trainer.{key}={value}", set()).add(record.seed)
        if others:
            texts = (f"{text} (seed {', '.join(map(str, sorted(seeds)))})" for text, seeds in others.items())
            lines.append(f"{named(manifest, row)} was trained with {', '.join(texts)}.")
    return lines
