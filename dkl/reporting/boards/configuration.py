"""Rows of leaderboards and accuracy boards: one trained configuration, averaged over its seeds.

Also how the records of a board become rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from dkl.records import BUDGETS, SHOTS, Record
from dkl.records.checks import TEST_IMAGES
from dkl.reporting.boards.cells import NONE
from dkl.reporting.boards.notes import equal_seed_notes, left_out, part_notes
from dkl.reporting.grouping import board_key, created_at, group, newest_per_seed, row_key, weights_kind
from dkl.reporting.names import attacks_label, teacher_title
from dkl.reporting.reference import REFERENCE, is_reference
from dkl.reporting.statistics.seeds import Interval, SeedMean, accuracy_interval


@dataclass(frozen=True, kw_only=True)
class ConfigurationRow:
    """One configuration with one evaluation per seed. Accuracies are fractions.

    ``means`` holds the metrics that every seed has: clean, robust, miou, top5, best, corrupted, many, medium, few.
    ``interval`` is the 95 % interval of robust accuracy if anything attacked, of mean IoU with masks (None for one
    seed), else of clean accuracy. ``best`` is the accuracy of the best epoch, chosen on the test set; ``best_epochs``
    are these epochs, seed by seed. ``rank`` is None for unranked rows.
    ``test_images`` is the size of the dataset's test set if known; ``part``: the record says that it is of a part.
    ``source`` is ``reference`` for reference records, and None for others. A published row names its source, and has
    neither seeds, records nor an interval. ``status`` is whether an entry was verified, on boards of entries.
    """

    rank: int | None = None
    method: str
    architecture: str
    teacher: str | None = None
    additional_data: bool = False
    synthetic: bool
    weights: str = NONE
    attacks: str = ""
    autoattack: bool = False
    n: int | None = None
    test_images: int | None = None
    part: bool = False
    seeds: tuple[int | None, ...] = ()
    record_ids: tuple[str, ...] = ()
    means: Mapping[str, SeedMean]
    interval: Interval | None = None
    best_epochs: tuple[int, ...] = ()
    source: str | None = None
    status: str = ""


@dataclass(frozen=True)
class BoardRecords:
    """The records of one board: the newest evaluation per seed, the rows made of them, and notes on the others.

    ``part``: they evaluate only a part of the test set, so they have no ranks.
    """

    budget: str
    newest: list[Record]
    rows: list[ConfigurationRow]
    left_out: list[str]
    part: bool

    @property
    def ranked(self) -> bool:
        """Whether rows have ranks."""
        return self.budget != "smoke" and not self.part

    @property
    def suffix(self) -> str:
        """What ends the board's name."""
        return f"{self.budget}-part" if self.part else self.budget


def group_by_board(
    records: Sequence[Record], order: Callable[[ConfigurationRow], tuple[Any, ...]], *, include_smoke: bool
) -> Iterator[BoardRecords]:
    """Yield the records of each board and budget; rows are sorted by ``order``, ties by method.

    Records of a part of the test set, or of a smaller one than others, have a second board. Budget ``smoke`` has boards
    only with ``include_smoke``. Without them, the other boards count the records left out.
    """
    for _, here in sorted(group(records, board_key).items()):
        budgets = group(here, lambda record: record.budget)
        # Smoke records are removed here, so that they can never become a row of another board.
        smoke = [] if include_smoke else budgets.pop("smoke", [])
        for budget in sorted(budgets, key=BUDGETS.index):
            boards = _by_size(budgets[budget])
            for part, same_size in boards.items():
                newest = newest_per_seed(same_size)
                seeds = group(newest, row_key).values()
                rows = sorted(map(average_seeds, seeds), key=lambda row: (*order(row), row.method, row.record_ids))
                equal = equal_seed_notes([headline_of(record) for record in same] for same in seeds)
                lines = [*equal, *left_out(same_size, len(smoke)), *part_notes(part, len(boards))]
                yield BoardRecords(budget, newest, rows, lines, part)


def _by_size(records: Sequence[Record]) -> dict[bool, list[Record]]:
    """Return the records of the whole test set under False, and those of a part of it under True, if there are any."""
    largest = max((record.n for record in records if not record.partial), default=0)
    return dict(sorted(group(records, lambda record: record.partial or record.n < largest).items()))


def descending(mean: SeedMean) -> float:
    """Return a sort key for the highest mean first, rounded so that equal means compare equal."""
    return -round(mean.mean, 10)


def headline_of(record: Record) -> float:
    """Return what ranks a record: mean IoU with masks, robust accuracy if anything attacked, else clean accuracy."""
    if record.segmented is not None:
        return record.segmented.miou
    return record.clean if record.robust is None else record.robust


def is_complete(row: object) -> bool:
    """Whether ``row`` is a configuration's row with AutoAttack or without any attack, not with other attacks."""
    return isinstance(row, ConfigurationRow) and (row.autoattack or not row.attacks)


def _attacks(records: Sequence[Record], newest: Record) -> str:
    """The attacks in words; of bounded AutoAttack with the interval in percent, its ends averaged over the seeds."""
    if newest.accuracy_only:
        return ""
    bounds = [record.bound for record in records if record.bound is not None]
    if not bounds:
        return attacks_label(newest)
    low, high = (100 * mean(getattr(bound, end) for bound in bounds) for end in ("low", "high"))
    return f"{attacks_label(newest)} in [{low:.2f}, {high:.2f}]"


def average_seeds(records: Sequence[Record]) -> ConfigurationRow:
    """Average the records of one row, one evaluation per seed."""
    newest = max(records, key=created_at)
    # The headline accuracy has the interval.
    headline = [headline_of(record) for record in records]
    values: dict[str, list[float | None]] = {
        "clean": [record.clean for record in records],
        "miou": [None if record.segmented is None else record.segmented.miou for record in records],
        "robust": [record.robust for record in records],
        "top5": [record.top5 for record in records],
        "best": [record.best for record in records],
        "corrupted": [record.corrupted for record in records],
        **{name: [(record.shots or {}).get(name) for record in records] for name in SHOTS},
    }
    # A mean over only some of the seeds would look like one over all of them, so it is left out.
    complete = {key: [value for value in found if value is not None] for key, found in values.items()}
    return ConfigurationRow(
        method=newest.method,
        architecture=newest.architecture,
        teacher=teacher_title(newest),
        additional_data=any(record.additional_data for record in records),
        synthetic=any(record.synthetic for record in records),
        weights=NONE if newest.seed is None else weights_kind(newest),
        attacks=_attacks(records, newest),
        autoattack=newest.is_autoattack,
        n=newest.n,
        test_images=TEST_IMAGES.get(newest.dataset),
        part=newest.partial,
        seeds=tuple(record.seed for record in records),
        record_ids=tuple(record.id for record in records),
        means={key: SeedMean.over(found) for key, found in complete.items() if len(found) == len(records)},
        # Mean IoU is no fraction of images, so one seed has no interval.
        interval=accuracy_interval(
            headline, None if newest.segmented else newest.n, [record.slack for record in records]
        ),
        best_epochs=tuple(record.best_epoch for record in records if record.best_epoch is not None),
        source=REFERENCE if is_reference(newest) else None,
    )
