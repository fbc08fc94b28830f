"""Records of accuracy alone folded to boards: one a data set and budget, one row a configuration, seeds averaged.

They hold classification and distillation. Nothing attacked is among them, and nothing is averaged across budgets,
numbers of images or test sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkl.records import SHOTS, Record
from dkl.reporting.boards import notes
from dkl.reporting.boards.base import NONE, Fold, budget_title, fold, interval_cell, marked, numbers, plain, seeds_cell
from dkl.reporting.formats.table import Spec, TextTable, tabulated
from dkl.reporting.grouping import age, place, weights
from dkl.reporting.names import display_architecture, slug, teacher
from dkl.reporting.statistics.estimates import Estimate, Interval, around


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """One configuration: ``seeds`` in order, one evaluation each, whose ids are ``records``; accuracies are fractions.

    Rank None: unranked. ``interval`` is the 95 % one of ``top1``. ``best`` is the best epoch's accuracy, chosen on the
    test set, and ``best_epochs`` are those epochs, seed by seed.
    """

    rank: int | None
    method: str
    architecture: str
    teacher: str | None
    additional_data: bool
    synthetic: bool
    weights: str
    n: int
    seeds: tuple[int | None, ...]
    records: tuple[str, ...]
    top1: Estimate
    interval: Interval
    top5: Estimate | None
    best: Estimate | None
    best_epochs: tuple[int, ...]
    shots: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class AccuracyBoard:
    """All rows of one (data set, budget), best first, and what a reader must know about them."""

    dataset: str
    budget: str
    rows: tuple[AccuracyRow, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file name without an ending, such as ``cifar100-accuracy-mini``."""
        return slug(f"{self.dataset}-accuracy-{self.budget}")

    @property
    def title(self) -> str:
        """The data set and the budget; a smoke board says that it is no result."""
        return f"{self.dataset}, accuracy ({budget_title(self.budget)})"

    def _columns(self) -> list[Spec[AccuracyRow]]:
        """Header, alignment and cell of every column; those that no row has are left out."""
        shots = [name for name in SHOTS if any(name in r.shots for r in self.rows)]
        taught, followed = any(r.teacher for r in self.rows), any(r.best for r in self.rows)
        return [
            ("Rank", "r", lambda r: NONE if r.rank is None else str(r.rank)),
            ("Method", "l", lambda r: marked(r.method, r.additional_data, r.synthetic)),
            ("Top-1 (%)", "r", lambda r: str(r.top1)),
            ("95 % interval", "r", lambda r: interval_cell(r.interval)),
            ("Top-5 (%)", "r", lambda r: str(r.top5 or NONE)),
            *([("Best epoch (%)*", "r", lambda r: str(r.best or NONE))] if followed else []),
            *((f"{name.capitalize()} (%)", "r", lambda r, name=name: str(r.shots.get(name, NONE))) for name in shots),
            ("Architecture", "l", lambda r: r.architecture),
            *([("Teacher", "l", lambda r: r.teacher or NONE)] if taught else []),
            ("Weights", "l", lambda r: r.weights),
            ("n", "r", lambda r: str(r.n)),
            ("Seeds", "l", lambda r: seeds_cell(r.seeds)),
        ]

    def table(self) -> TextTable:
        """For people: mean ± std in one cell, percent."""
        records = tuple(r.records for r in self.rows)
        return tabulated(self._columns(), self.rows, title=self.title, notes=self.notes, records=records)

    def data(self) -> TextTable:
        """For machines: one plain number a cell, percent with two decimals; empty where there is none."""
        header = (
            *("rank", "method", "additional_data", "synthetic_data", "dataset", "budget", "top1_mean", "top1_std"),
            *("top5_mean", "top5_std", "best_epoch_mean", "best_epoch_std"),
            *(f"{name}_{value}" for name in SHOTS for value in ("mean", "std")),
            *("top1_low", "top1_high", "best_epochs", "architecture", "teacher", "weights", "n", "seeds", "seed_list"),
        )
        rows = tuple(
            (
                *("" if r.rank is None else str(r.rank), r.method),
                *(str(r.additional_data).lower(), str(r.synthetic).lower(), self.dataset, self.budget),
                *numbers(r.top1, r.top5, r.best, *(r.shots.get(name) for name in SHOTS)),
                *map(plain, r.interval),
                *(" ".join(map(str, r.best_epochs)), r.architecture, r.teacher or "", r.weights, str(r.n)),
                *(str(len(r.seeds)), " ".join(str(seed) for seed in r.seeds if seed is not None)),
            )
            for r in self.rows
        )
        return TextTable(title=self.title, header=header, rows=rows, alignments="l" * len(header), notes=self.notes)


def _over(values: Sequence[float | None]) -> Estimate | None:
    """The estimate where every seed has a value."""
    known = [value for value in values if value is not None]
    return Estimate.over(known) if len(known) == len(values) else None


def _row(records: Sequence[Record], rank: int | None) -> AccuracyRow:
    """The fold of one row; ``records`` has one evaluation a seed."""
    latest = max(records, key=age)
    shots = {name: _over([(record.shots or {}).get(name) for record in records]) for name in SHOTS}
    return AccuracyRow(
        rank=rank,
        method=latest.method,
        architecture=display_architecture(latest.architecture),
        teacher=teacher(latest),
        additional_data=any(record.additional_data for record in records),
        synthetic=any(record.synthetic for record in records),
        weights=NONE if latest.seed is None else weights(latest),
        n=latest.n,
        seeds=tuple(record.seed for record in records),
        records=tuple(record.id for record in records),
        top1=Estimate.over([record.clean for record in records]),
        interval=around([record.clean for record in records], latest.n),
        top5=_over([record.top5 for record in records]),
        best=_over([record.best for record in records]),
        best_epochs=tuple(record.best_epoch for record in records if record.best_epoch is not None),
        shots={name: estimate for name, estimate in shots.items() if estimate},
    )


def _order(records: Sequence[Record]) -> tuple[float, str, str]:
    """Top-1 accuracy, descending; rounded so that equal means compare equal."""
    return -round(Estimate.over([record.clean for record in records]).mean, 10), records[0].method, records[0].id


def _board(found: Fold) -> AccuracyBoard:
    """The board of records that share data set and budget; a smoke board ranks nothing."""
    first = found.shown[0]
    return AccuracyBoard(
        dataset=first.dataset,
        budget=first.budget,
        rows=tuple(
            _row(members, None if first.budget == "smoke" else number) for number, members in enumerate(found.rows, 1)
        ),
        notes=(*notes.of_accuracy(found.shown), *found.left_out),
    )


def accuracy_boards(records: Sequence[Record], include_smoke: bool = False) -> list[AccuracyBoard]:
    """One board a (data set, budget); those of budget ``smoke`` only with ``include_smoke``."""
    return fold([record for record in records if record.accuracy_only], include_smoke, place, _order, _board)
