"""Which records belong together: on one board, in one row, as evaluations of one seed of a row."""

from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from dkl.records import Record

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Threat = tuple[str, str, float]
"""Data set, norm and radius. The radius is compared as a number: 8/255 may be spelt in several ways."""


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Records, or other items, by ``key``, in the order they come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def threat(record: Record) -> Threat:
    """The threat model of the record's evaluation."""
    return record.dataset, record.norm, round(record.eps, 9)


def place(record: Record) -> tuple[Hashable, ...]:
    """Which board a record is for, but for the budget: accuracy's of its data set, or its threat model's."""
    return (record.dataset, "accuracy") if record.accuracy_only else threat(record)


def weights(record: Record) -> str:
    """Which weights of a run were evaluated, without the epoch: ``last``, ``average`` or ``best``."""
    return record.weights.partition(" ")[0]


def row(record: Record) -> tuple[Hashable, ...]:
    """What all records of one row share: the configuration but for its seed, the budget and the way of evaluating.

    Last, averaged and best weights are rows of their own. Weights trained elsewhere have no configuration: each
    checkpoint is a row.
    """
    return (
        *threat(record),
        record.budget,
        record.row,
        weights(record),
        tuple(record.attacks),
        record.n,
        record.data_sha256,
    )


def one_seed(record: Record) -> tuple[Hashable, ...]:
    """The row and the training seed: of records that share it, the newest counts."""
    return *row(record), record.seed


def age(record: Record) -> tuple[datetime, str]:
    """Sorts records from old to new; a time without a zone is UTC, an unreadable one is the oldest."""
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        created = datetime.min
    return created if created.tzinfo else created.replace(tzinfo=UTC), record.id


def newest(records: Iterable[Record]) -> list[Record]:
    """The newest evaluation of every row and seed, seeds in order and weights trained elsewhere last."""
    latest = [max(again, key=age) for again in group(records, one_seed).values()]
    return sorted(latest, key=lambda record: (record.seed is None, record.seed, record.id))
