"""Groups of records: those of one board, of one row, and of one seed of a row."""

from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import TypeVar

from dkl.records import Record
from dkl.reporting.reference import is_reference

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

ThreatModel = tuple[str, str, float]
"""Dataset, norm and radius in [0, 1] pixel units."""


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Group ``items`` by ``key``. Groups and their members keep the order of ``items``."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def threat_model(record: Record) -> ThreatModel:
    """Return the threat model of an evaluation.

    The radius is a rounded number, not the text: 8/255 can also be written as 0.03137254902.
    """
    return record.dataset, record.norm, round(record.eps, 9)


def board_key(record: Record) -> tuple[Hashable, ...]:
    """Return which board shows a record, apart from its budget: the accuracies of a dataset, or a threat model."""
    return (record.dataset, "accuracy") if record.accuracy_only else threat_model(record)


def weights_kind(record: Record) -> str:
    """Return which weights of a run were evaluated, without the epoch: ``last``, ``average`` or ``best``."""
    return record.weights.partition(" ")[0]


def images_key(record: Record) -> tuple[Hashable, ...]:
    """Return what values share that may be averaged or compared: the test images, and how masks were predicted."""
    return record.n, record.data_sha256, record.segmented.prediction if record.segmented else ""


def row_key(record: Record) -> tuple[Hashable, ...]:
    """Return what all records of one row of a board share: the row's identity, and the way of evaluating.

    The last, averaged and best weights of a run are different rows, and so are reference records.
    """
    attacks = tuple(record.attacks), record.search.get("precision")
    evaluation = weights_kind(record), attacks, *images_key(record)
    return *threat_model(record), record.budget, record.row, is_reference(record), *evaluation


def seed_key(record: Record) -> tuple[Hashable, ...]:
    """Return the row and the training seed. Of several records that share them, only the newest counts."""
    return *row_key(record), record.seed


def created_at(record: Record) -> tuple[datetime, str]:
    """Return a key that sorts records from old to new."""
    return record.time, record.id


def newest_per_seed(records: Iterable[Record]) -> list[Record]:
    """Return the newest evaluation of every row and seed, sorted by seed. Weights trained elsewhere come last."""
    newest = [max(same, key=created_at) for same in group(records, seed_key).values()]
    return sorted(newest, key=lambda record: (record.seed is None, record.seed, record.id))
