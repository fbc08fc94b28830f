"""What a row's records say of one column of a table: one value a seed.

Of several evaluations of a run those count that are of the column's attacks and radius (Linf), of the weights the
recipe keeps (the best of its selection, else its average, else the last), and of the most images; of equals the newest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dkl.manifests import Column
from dkl.records import SHOTS, Record
from dkl.reporting.grouping import age, group, weights
from dkl.threat import parse_attacks, parse_eps


def _shot(name: str) -> Callable[[Record], float | None]:
    return lambda record: (record.shots or {}).get(name)


_FIGURES: dict[str, Callable[[Record], float | None]] = {
    "clean": lambda record: None if record.accuracy_only else record.clean,
    "robust": lambda record: record.robust,
    "top1": lambda record: record.clean if record.accuracy_only else None,
    "top5": lambda record: record.top5 if record.accuracy_only else None,
    "best": lambda record: record.best if record.accuracy_only else None,
    **{name: _shot(name) for name in SHOTS},
    "step_seconds": lambda record: record.step_seconds,
}

_FLAGS: dict[str, Callable[[Record], tuple[str, ...]]] = {
    "clean": lambda record: ("clean",),
    "robust": lambda record: ("clean", *record.attacks),
    "top1": lambda record: ("clean",),
    "top5": lambda record: ("top5",),
}
"""Metrics that are a share of images, and the flags that must all hold for an image to count."""

SHARES = tuple(_FLAGS)
"""Metrics that are a share of a record's n images; the best of many epochs is no such sample."""


@dataclass(frozen=True)
class Measured:
    """A column's ``value`` at one seed: a fraction, or seconds. It is from ``records``, and is a mean over images where
    ``flags`` has for each of them the names of the flags that must hold."""

    value: float
    records: tuple[Record, ...]
    flags: tuple[tuple[str, ...], ...] = ()


def measure(records: Sequence[Record], key: str, columns: Mapping[str, Column]) -> dict[int, Measured]:
    """The column ``key`` by seed, seeds in order; those that lack a part of it are left out."""
    column = columns[key]
    if column.of:
        return _folded(column, [measure(records, part, columns) for part in column.of])
    figure = _FIGURES.get(column.metric)
    if figure is None:
        return {}
    candidates = [record for record in records if figure(record) is not None and _asked(record, column)]
    found: dict[int, Measured] = {}
    for record in _of_one_kind(candidates):
        value, flags = figure(record), _FLAGS.get(column.metric)
        assert value is not None
        assert record.seed is not None
        found[record.seed] = Measured(value, (record,), (flags(record),) if flags else ())
    return dict(sorted(found.items()))


def kept(record: Record) -> str:
    """Which weights of the record's run its recipe keeps, as ``grouping.weights`` names them."""
    if (record.training.get("selection") or {}).get("every"):
        return "best"
    return "average" if record.training.get("averaging") else "last"


def _asked(record: Record, column: Column) -> bool:
    """Whether the record is of the column's attacks and radius; only robust accuracy asks for any."""
    if column.metric != "robust":
        return True
    eps = parse_eps(record.training["data"]["eps"] if column.eps is None else column.eps)
    same_attacks = set(record.attacks) == set(parse_attacks(column.attacks))
    return same_attacks and record.norm == "Linf" and round(record.eps, 9) == round(eps, 9)


def _of_one_kind(candidates: Sequence[Record]) -> list[Record]:
    """The newest evaluation of each seed among those of the weights kept and of the same, most images."""
    kinds = group((r for r in candidates if weights(r) == kept(r)), lambda r: (r.n, r.data_sha256)).values()
    seeds = (group(kind, lambda r: r.seed) for kind in kinds)
    latest = [[max(again, key=age) for again in by_seed.values()] for by_seed in seeds]
    return max(latest, key=lambda kind: (kind[0].n, len(kind), max(map(age, kind))), default=[])


def _folded(column: Column, parts: Sequence[Mapping[int, Measured]]) -> dict[int, Measured]:
    """Mean or minimum over other columns, where a seed has them all. A mean of shares is one of images as well."""
    found: dict[int, Measured] = {}
    for seed in sorted(set.intersection(*map(set, parts))):
        here = [part[seed] for part in parts]
        values = [part.value for part in here]
        records = tuple(record for part in here for record in part.records)
        if column.metric == "min":
            found[seed] = Measured(min(values), records)
        else:
            flags = tuple(names for part in here for names in part.flags)
            found[seed] = Measured(sum(values) / len(values), records, flags if len(flags) == len(records) else ())
    return found
