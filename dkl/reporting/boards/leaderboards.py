"""Leaderboards and accuracy boards: one row per trained configuration, averaged over its seeds.

Leaderboards hold records of attacks, one board per threat model and budget; accuracy boards hold records without
attacks (classification, distillation, segmentation), one per dataset and budget. Budgets, attack suites, numbers of
images and test sets are never averaged together, and budgets never ranked together. Records of a part of the test set,
or of a smaller one than others, have a second board without ranks.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from dkl.config.identity import leaves, row_settings
from dkl.records import BUDGETS, SHOTS, Record
from dkl.records.metrics import METRICS, Interval
from dkl.records.storage import TEST_IMAGES
from dkl.reporting import grouping
from dkl.reporting.boards import (
    NONE,
    Board,
    Cell,
    ColumnSpec,
    budget_title,
    constants,
    interval_cell,
    method_cell,
    notes,
    plain_flag,
    plain_percent,
    seeds_cell,
)
from dkl.reporting.statistics import SeedMean, accuracy_interval


@dataclass(frozen=True, kw_only=True)
class ConfigurationRow:
    """One configuration with one of the ``records`` per seed. Accuracies are fractions.

    ``means`` holds the metrics that every seed has, by their names in ``METRICS``. ``interval`` is the 95 % interval of
    robust accuracy if anything attacked, of mean IoU with masks (None for one seed), else of clean accuracy. ``rank``
    is None for unranked rows. ``source`` is ``reference`` for reference records, and None for others. A published row
    names its source, and has neither records nor an interval. ``status`` is whether an entry was verified.
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
    records: tuple[Record, ...] = ()
    means: Mapping[str, SeedMean]
    interval: Interval | None = None
    source: str | None = None
    status: str = ""

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """The training seeds; None for weights trained elsewhere."""
        return tuple(record.seed for record in self.records)


Leaderboard = Board[ConfigurationRow]
Column = ColumnSpec[ConfigurationRow]
Order = Callable[[ConfigurationRow], tuple[Any, ...]]


def leaderboards(
    records: Sequence[Record],
    include_smoke: bool = False,
    published: Mapping[grouping.ThreatModel, Sequence[ConfigurationRow]] | None = None,
) -> list[Leaderboard]:
    """Build one board per dataset, norm, radius and budget, and one per dataset and budget of the accuracies.

    Budget ``smoke`` has boards only with ``include_smoke``. Boards of budget ``paper`` also have the ``published`` rows
    of their threat model.
    """

    def measured(record: Record) -> tuple[Hashable, ...]:
        return *grouping.seed_key(record), record.checkpoint_sha256

    # An evaluation with corruptions repeats another one of the same weights and images.
    repeated = {measured(record) for record in records if record.corruptions}
    fullest = [r for r in records if r.attacks or r.corruptions or measured(r) not in repeated]
    return list(_boards(fullest, include_smoke, published or {}))


def _boards(
    records: Sequence[Record], include_smoke: bool, published: Mapping[grouping.ThreatModel, Sequence[ConfigurationRow]]
) -> Iterator[Leaderboard]:
    """Yield the boards of all budgets, and of parts of the test set after the whole one.

    Without boards of budget ``smoke``, the other boards count its records.
    """
    for _, here in sorted(grouping.group(records, grouping.board_key).items()):
        budgets = grouping.group(here, lambda record: record.budget)
        # Smoke records are removed here, so that they can never become a row of another board.
        smoke = [] if include_smoke else budgets.pop("smoke", [])
        for budget in sorted(budgets, key=BUDGETS.index):
            largest = max((record.n for record in budgets[budget] if not record.partial), default=0)
            sizes = grouping.group(budgets[budget], lambda record: record.partial or record.n < largest)  # noqa: B023  # called now
            for part, same_size in sorted(sizes.items()):
                # Published values come from full-size recipes, so only budget paper is comparable.
                beside = published.get(grouping.threat_model(here[0]), ()) if budget == "paper" and not part else ()
                left_out = notes.left_out(same_size, len(smoke))
                if part:
                    left_out.append(
                        "These evaluations are of a part of the test set only, so they are neither ranked nor compared."
                    )
                elif len(sizes) > 1:
                    left_out.append("Evaluations of a part of the test set have a board of their own.")
                yield _board(same_size, beside, left_out, part=part)


def _board(
    records: Sequence[Record], beside: Sequence[ConfigurationRow], left_out: Sequence[str], *, part: bool
) -> Leaderboard:
    """Build the board of ``records`` of one budget: the newest evaluation per seed, averaged over seeds.

    It has ranks unless the budget is ``smoke`` or the records are of a ``part`` of the test set.
    """
    newest = grouping.newest_per_seed(records)
    seeds = grouping.group(newest, grouping.row_key).values()
    averaged = told_apart(list(map(average_seeds, seeds)), [same[0] for same in seeds])
    rows = sorted(averaged, key=lambda row: (row.method, [r.id for r in row.records]))
    record, budget = newest[0], newest[0].budget
    if record.accuracy_only:
        what, name = f"{record.dataset}, {'accuracy' if record.segmented is None else 'mean IoU'}", "accuracy"
        columns, order = _accuracy_columns(record)
    else:
        eps = shortest(record.eps_text for record in newest)
        what, name = f"{record.dataset}, {record.norm}, eps = {eps}", f"{record.norm}-eps{eps}"
        columns, order = _attack_columns(dataset=record.dataset, norm=record.norm, eps=eps, budget=budget)
    return Leaderboard(
        name=grouping.slug(f"{record.dataset}-{name}-{budget}{'-part' if part else ''}"),
        title=f"{what} ({budget_title(budget)}){', part of the test set' if part else ''}",
        budget=budget,
        part=part,
        columns=columns,
        rows=ranks([*rows, *beside], order, lambda row: budget != "smoke" and not part and is_complete(row)),
        notes=(
            *notes.evaluation_notes(newest),
            *([notes.PUBLISHED] if beside else []),
            *notes.equal_seed_notes([headline_of(record) for record in same] for same in seeds),
            *left_out,
        ),
    )


def told_apart(rows: list[ConfigurationRow], records: Sequence[Record]) -> list[ConfigurationRow]:
    """Add to rows that show the same the first settings that differ in their ``records``, such as an optimizer."""
    shown = [(row.method, row.architecture, row.teacher, row.weights, row.attacks, row.n, row.source) for row in rows]
    for places in grouping.group(range(len(rows)), shown.__getitem__).values():
        settings = [
            dict(leaves(row_settings(records[place].training))) | grouping.teachers_weights(records[place])
            for place in places
        ]
        keys = dict.fromkeys(key for own in settings for key in own if not key.startswith(("task.loss", "task.attack")))
        differ = [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]
        for count in (1, 2, 3):  # as few as tell all of them apart
            if len({repr([own.get(key) for key in differ[:count]]) for own in settings}) == len(settings):
                break
        for place, own in zip(places, settings, strict=True):
            texts = [
                f"{grouping.setting_name(key)}={grouping.value_text(own[key])}" for key in differ[:count] if key in own
            ]
            rows[place] = replace(rows[place], method=", ".join([rows[place].method, *texts]))
    return rows


def average_seeds(records: Sequence[Record]) -> ConfigurationRow:
    """Average the records of one row, one evaluation per seed."""
    newest = max(records, key=grouping.created_at)
    means: dict[str, SeedMean] = {}
    for name, metric in METRICS.items():
        values = [value for record in records if (value := metric.measured(record)) is not None]
        # A mean over only some of the seeds would look like one over all of them, so it is left out.
        if len(values) == len(records):
            means[name] = SeedMean.over(values)
    bounds = _bounds_cell(records)
    return ConfigurationRow(
        method=newest.method,
        architecture=newest.architecture,
        teacher=grouping.teacher_title(newest),
        additional_data=any(record.additional_data for record in records),
        synthetic=any(record.synthetic for record in records),
        weights=NONE if newest.seed is None else grouping.weights_kind(newest),
        attacks="" if newest.accuracy_only else grouping.attacks_label(newest) + (f" in {bounds}" if bounds else ""),
        autoattack=newest.is_autoattack,
        n=newest.n,
        records=tuple(records),
        means=means,
        # Mean IoU is no fraction of images, so one seed has no interval.
        interval=accuracy_interval(
            list(map(headline_of, records)),
            None if newest.segmented else newest.n,
            [record.slack for record in records],
        ),
        source=grouping.REFERENCE if grouping.is_reference(newest) else None,
    )


def _bounds_cell(records: Iterable[Record]) -> str:
    """The bounds of bounded AutoAttack in percent, averaged over the seeds; empty for other evaluations."""
    ends = [(record.bound.low, record.bound.high) for record in records if record.bound]
    return "[{:.2f}, {:.2f}]".format(*(100 * mean(side) for side in zip(*ends, strict=True))) if ends else ""


def headline_of(record: Record) -> float:
    """Return what ranks a record: mean IoU with masks, robust accuracy if anything attacked, else clean accuracy."""
    if record.segmented is not None:
        return record.segmented.miou
    return record.clean if record.robust is None else record.robust


def is_complete(row: object) -> bool:
    """Whether ``row`` is a configuration's row with AutoAttack or without any attack, not with other attacks."""
    return isinstance(row, ConfigurationRow) and (row.autoattack or not row.attacks)


def ranks(
    rows: Iterable[ConfigurationRow], order: Order, has_rank: Callable[[ConfigurationRow], bool] = lambda row: True
) -> tuple[ConfigurationRow, ...]:
    """Sort ``rows`` by ``order`` and number those that have a rank by their places. Equal weights share a rank."""
    ranked, places = [], dict[Hashable, int]()
    for place, row in enumerate(sorted(rows, key=order), 1):
        weights = frozenset(record.checkpoint_sha256 for record in row.records)
        shared = places.setdefault(weights or place, place) if has_rank(row) else None
        ranked.append(replace(row, rank=shared))
    return tuple(ranked)


def descending(mean: SeedMean) -> float:
    """Return a sort key for the highest mean first, rounded so that equal means compare equal."""
    return -round(mean.mean, 10)


def shortest(texts: Iterable[str]) -> str:
    """Return the spelling of a radius that is easiest to read, of several of the same one."""
    return min(texts, key=lambda text: (len(text), text))


def _attack_columns(**constant: str) -> tuple[tuple[Column, ...], Order]:
    """Return the columns of a leaderboard, among them the ``constant`` ones for machines, and its order."""
    columns = (
        RANK,
        METHOD,
        constants(**constant),
        *ROBUST,
        ARCHITECTURE,
        TRAINING,
        WEIGHTS,
        IMAGES,
        SEEDS,
        Column("Attack", lambda row: row.attacks, "attacks"),
        Column(data={"autoattack": lambda row: plain_flag(row.autoattack)}),
        # Machines read these columns last, people further to the left.
        WEIGHTS_DATA,
        SYNTHETIC,
        SOURCE,
    )
    # AutoAttack rows come first, so that their places are their ranks.
    return columns, lambda row: (not row.autoattack, *(descending(row.means[name]) for name in ("robust", "clean")))


def _accuracy_columns(record: Record) -> tuple[tuple[Column, ...], Order]:
    """Return the columns of a board of records like ``record``, and its order."""
    metrics = [name for name, metric in METRICS.items() if metric.of(record) and metric.unit == "%"]
    headline = next(name for name in ("miou", "top1") if name in metrics)

    def order(row: ConfigurationRow) -> tuple[float, ...]:
        # Artificial datasets of one name may have masks in some runs: such rows have no mean of the others' headline.
        return (descending(row.means[headline]),) if headline in row.means else (1.0,)

    # Accuracies of groups of classes come last.
    others = sorted((name for name in metrics if name not in (headline, "robust")), key=lambda name: name in SHOTS)
    columns = (
        RANK,
        METHOD,
        SYNTHETIC,
        constants(dataset=record.dataset, budget=record.budget),
        mean_column(headline, essential=True),
        INTERVAL,
        *map(mean_column, others),
        interval_data(headline),
        Column(data={"best_epochs": lambda row: " ".join(str(r.best_epoch) for r in row.records if r.best_epoch)}),
        ARCHITECTURE,
        TEACHER,
        TRAINING,
        WEIGHTS,
        WEIGHTS_DATA,
        IMAGES,
        SEEDS,
        SOURCE,
    )
    return columns, order


# Columns of several boards.


def mean_column(name: str, essential: bool = False) -> Column:
    """Return the mean ± std of the metric ``name`` in percent, for machines in two columns."""
    metric = METRICS[name]

    def value(part: str) -> Cell[ConfigurationRow]:
        return lambda row: plain_percent(getattr(row.means.get(name), part, None))

    def cell(row: ConfigurationRow) -> str:
        bounds = _bounds_cell(row.records) if name == "robust" else ""
        return bounds or str(row.means.get(name, ""))  # the upper end alone would pass for the accuracy

    return Column(
        # The star is that of the note on the choice of the best epoch.
        f"{metric.title} (%){'*' if name == 'best' else ''}",
        cell,
        {f"{metric.data or name}_{part}": value(part) for part in ("mean", "std")},
        align="r",
        only_if=(lambda row: name in row.means) if metric.optional else None,
        essential=essential,
    )


def interval_data(name: str) -> Column:
    """Return the ends of the interval for machines, ``<name>_low`` and ``<name>_high``."""

    def end(place: int) -> Cell[ConfigurationRow]:
        return lambda row: plain_percent(row.interval and row.interval[place])

    return Column(data={f"{name}_low": end(0), f"{name}_high": end(1)})


def _images(row: ConfigurationRow) -> str:
    """Return the number of test images, so that fewer than the dataset has cannot pass for all of them.

    Rows that say so themselves are on boards of parts, whose title says it.
    """
    record = next(iter(row.records), None)
    whole = record and TEST_IMAGES.get(record.dataset)
    if record is None or record.partial or row.n == whole:
        return str(row.n or "")
    return f"{row.n} of {whole}" if whole else f"{row.n}, test set unknown"


def _training(row: ConfigurationRow) -> str:
    """Return for how long and on how many images a row of own settings was trained: its budget does not fix them."""
    own = dict(leaves(row.records[0].training)) if row.records and row.records[0].budget == "own" else {}
    epochs, size = own.get("trainer.epochs"), own.get("data.train_size")
    images = f" of {size - (own.get('selection.holdout') or 0):,} images" if size else ""
    return f"{epochs} {'epoch' if epochs == 1 else 'epochs'}{images}" if epochs else ""


RANK = Column("Rank", lambda row: str(row.rank or ""), "rank", align="r", essential=True)
METHOD = Column(
    "Method",
    lambda row: method_cell(row.method, additional_data=row.additional_data, synthetic=row.synthetic),
    {"method": lambda row: row.method, "additional_data": lambda row: plain_flag(row.additional_data)},
    essential=True,
)
SYNTHETIC = Column(data={"synthetic_data": lambda row: plain_flag(row.synthetic)})
INTERVAL = Column("95 % interval", lambda row: interval_cell(row.interval), align="r")
ROBUST = (mean_column("clean"), mean_column("robust", essential=True), INTERVAL, interval_data("robust"))
"""Clean and robust accuracy, and the interval of the latter."""
ARCHITECTURE = Column("Architecture", lambda row: row.architecture, "architecture")
TEACHER = Column("Teacher", lambda row: row.teacher or "", "teacher", only_if=lambda row: row.teacher is not None)
TRAINING = Column("Training", _training, "training", only_if=lambda row: bool(_training(row)))
WEIGHTS = Column("Weights", lambda row: row.weights)
WEIGHTS_DATA = Column(data={"weights": lambda row: row.weights})
IMAGES = Column("n", _images, {"n": lambda row: str(row.n or "")}, align="r")
SEEDS = Column(
    "Seeds",
    lambda row: seeds_cell(row.seeds),
    {
        "seeds": lambda row: str(len(row.seeds) or ""),
        "seed_list": lambda row: " ".join(str(seed) for seed in row.seeds if seed is not None),
    },
)
SOURCE = Column(
    "Source",
    lambda row: row.source or "ours",
    {"source": lambda row: row.source or ""},
    only_if=lambda row: row.source is not None,
)
