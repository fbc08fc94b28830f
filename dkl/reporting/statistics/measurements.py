"""The value of one column of a paper table at each seed of a row.

A run can have several evaluations. The one that counts has the column's attacks, their precision and the radius (Linf),
evaluates the weights that the column names or the recipe keeps (the best if it selects, else the average, else the
last) and has the most images. A part of the test set counts only in a column of so many images. Of equal ones the
newest counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dkl.manifests import Column
from dkl.records import SHOTS, Record
from dkl.reporting.grouping import created_at, group, images_key, weights_kind
from dkl.threat import gives_result_of, parse_attacks, parse_eps


def _shot(name: str) -> Callable[[Record], float | None]:
    return lambda record: (record.shots or {}).get(name)


_VALUES: dict[str, Callable[[Record], float | None]] = {
    "clean": lambda record: None if record.accuracy_only else record.clean,
    "robust": lambda record: record.robust,
    "top1": lambda record: record.clean if record.accuracy_only and record.segmented is None else None,
    "miou": lambda record: None if record.segmented is None else record.segmented.miou,
    "pixel_accuracy": lambda record: None if record.segmented is None else record.clean,
    "top5": lambda record: record.top5 if record.accuracy_only else None,
    "best": lambda record: record.best if record.accuracy_only else None,
    **{name: _shot(name) for name in SHOTS},
    "step_seconds": lambda record: record.step_seconds,
}
"""A record's value of each metric; None if it does not have the metric."""

_FLAGS: dict[str, Callable[[Record], tuple[str, ...]]] = {
    "clean": lambda record: ("clean",),
    "robust": lambda record: ("clean", *record.attacks),
    "top1": lambda record: ("clean",),
    "top5": lambda record: ("top5",),
}
"""Metrics that are a fraction of images. An image counts if all these flags are true."""

IMAGE_FRACTIONS = tuple(_FLAGS)
"""Metrics with a binomial interval over n images. ``best`` is not one: it is a maximum over epochs."""


@dataclass(frozen=True)
class Measurement:
    """The ``value`` of a column at one seed (a fraction, or seconds), and the ``records`` it comes from.

    ``flags`` names, for each record, the flags that must be true for an image to count. It is empty if the value is not
    a mean over images. ``slack`` is how far the accuracy may lie below the value: more than 0 for bounded AutoAttack.
    """

    value: float
    records: tuple[Record, ...]
    flags: tuple[tuple[str, ...], ...] = ()
    slack: float = 0.0


def measure(records: Sequence[Record], key: str, columns: Mapping[str, Column]) -> dict[int, Measurement]:
    """Return the column ``key`` by seed, in the order of seeds. Seeds that lack a part of the column are left out."""
    column = columns[key]
    # A column over other columns is combined from their values at the same seed.
    if column.of:
        return _combine(column, [measure(records, part, columns) for part in column.of])
    value_of = _VALUES.get(column.metric)
    if value_of is None:
        return {}
    candidates = [
        record
        for record in records
        if value_of(record) is not None
        and _has_threat_model(record, column)
        and _has_images(record, column)
        and weights_kind(record) == (column.weights or kept_weights(record))
    ]
    found: dict[int, Measurement] = {}
    for record in _comparable(candidates):
        value, flags = value_of(record), _FLAGS.get(column.metric)
        assert value is not None
        assert record.seed is not None
        slack = record.slack if column.metric == "robust" else 0.0
        found[record.seed] = Measurement(value, (record,), (flags(record),) if flags else (), slack)
    return dict(sorted(found.items()))


def kept_weights(record: Record) -> str:
    """Return which weights the recipe of a run keeps: ``best``, ``average`` or ``last``."""
    if (record.training.get("selection") or {}).get("every"):
        return "best"
    return "average" if record.training.get("averaging") else "last"


def _has_threat_model(record: Record, column: Column) -> bool:
    """Whether the record has the column's attacks, precision and radius. Only robust accuracy asks for them."""
    if column.metric != "robust":
        return True
    # A column without a radius uses the dataset's default, which the run's configuration has.
    eps = parse_eps(record.training["data"]["eps"] if column.eps is None else column.eps)
    same_attacks = gives_result_of(record.attacks, parse_attacks(column.attacks))
    same_attacks = same_attacks and record.search.get("precision", "float32") == column.precision
    return same_attacks and record.norm == "Linf" and round(record.eps, 9) == round(eps, 9)


def _has_images(record: Record, column: Column) -> bool:
    """Whether the record has the column's images: all of the test set unless the column has a number."""
    return record.n == column.n if column.n else not record.partial


def _comparable(candidates: Sequence[Record]) -> list[Record]:
    """Return one evaluation per seed, all on the same test images, with masks predicted in the same way.

    Of several sets of images the largest counts, then the one with the most seeds, then the newest.
    """
    # Values on different images must not be averaged together.
    by_images = group(candidates, images_key).values()
    by_seed = (group(same, lambda record: record.seed) for same in by_images)
    newest = [[max(again, key=created_at) for again in seeds.values()] for seeds in by_seed]
    return max(newest, key=lambda same: (same[0].n, len(same), max(map(created_at, same))), default=[])


def _combine(column: Column, parts: Sequence[Mapping[int, Measurement]]) -> dict[int, Measurement]:
    """Return the mean or minimum over other columns, at the seeds that have all of them."""
    found: dict[int, Measurement] = {}
    for seed in sorted(set.intersection(*map(set, parts))):
        here = [part[seed] for part in parts]
        values = [part.value for part in here]
        records = tuple(record for part in here for record in part.records)
        if column.metric == "min":
            lowest = min(part.value - part.slack for part in here)
            found[seed] = Measurement(min(values), records, slack=min(values) - lowest)
        else:
            # A mean of fractions of images is itself a mean over images, unless one part has no flags.
            flags = tuple(names for part in here for names in part.flags)
            all_have_flags = len(flags) == len(records)
            slack = sum(part.slack for part in here) / len(here)
            found[seed] = Measurement(sum(values) / len(values), records, flags if all_have_flags else (), slack)
    return found
