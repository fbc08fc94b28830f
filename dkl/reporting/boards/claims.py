"""Claims of the paper, and whether the runs of small experiments show them: one row per claim with a ``text``.

The verdict follows from the 95 % interval of the paired difference. It agrees if the interval lies on the claimed side
of 0, disagrees if it lies on the other side, and the difference is not visible at this size if the interval holds 0.
Two rows claimed to be the same agree if the interval lies within the margin of the claim, and disagree if it lies
outside. One seed gives no verdict: its interval knows the chance of the images, but not that of
training.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dkl.manifests.manifest import Claim, Column
from dkl.records import Record
from dkl.reporting.boards import Board, ColumnSpec, notes
from dkl.reporting.boards.paper import PaperBoard
from dkl.reporting.grouping import REFERENCE, group, is_reference, unique
from dkl.reporting.statistics import Comparison

NOTES = (
    "Difference of the two methods on the same seeds and test images, in percentage points, with its 95 % interval; "
    "p is not corrected for the number of claims.",
    "Values of bounded AutoAttack count only the images fooled in its sample; the interval and p allow for its bounds.",
    "Hours are those of training and evaluating the compared rows, on the hardware named below.",
)

SMALL = ("own", "mini")
"""Budgets of small runs: smoke tests nothing, and at budget paper an experiment has its own board only."""


@dataclass(frozen=True)
class ClaimRow:
    """A ``claim``, the ``outcome`` of the comparison that tests it, and the ``board`` with the values compared."""

    claim: Claim
    outcome: Comparison
    board: PaperBoard

    @property
    def records(self) -> list[Record]:
        """The records of the two rows compared."""
        names = (self.claim.better, self.claim.than)
        return [record for row in self.board.rows if row.row.name in names for record in row.records]

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of ``records``."""
        return tuple(record.id for record in self.records)

    @property
    def verdict(self) -> str:
        """``agrees``, ``disagrees``, ``not visible at this size`` or ``one seed only``."""
        if len(self.outcome.seeds) == 1:
            return "one seed only"
        margin = None if self.claim.within is None else self.claim.within / self.column.scale
        agrees = self.outcome.agrees(margin, self.column.more_is_better)
        return {True: "agrees", False: "disagrees", None: "not visible at this size"}[agrees]

    @property
    def column(self) -> Column:
        """The column that the claim is about."""
        return self.board.manifest.columns[self.claim.column]


ClaimColumn = ColumnSpec[ClaimRow]


def claim_boards(boards: Sequence[PaperBoard]) -> list[Board[ClaimRow]]:
    """Build one board of all claims tested at small size, and one of those of reference records.

    Experiments are in the order of the paper's tables that their claims come from.
    """

    def first_table(board: PaperBoard) -> float:
        sources = " ".join(claim.source for claim in board.manifest.claims)
        return min(map(int, re.findall(r"Table (\d+)", sources)), default=math.inf)

    rows = [
        ClaimRow(board.manifest.claims[position], outcome, board)
        for board in sorted(boards, key=first_table)
        for position, outcome in board.comparisons.items()
        if board.budget in SMALL and board.manifest.claims[position].text and isinstance(outcome, Comparison)
    ]
    built = []
    for reference, own in group(rows, lambda row: any(map(is_reference, row.records))).items():
        records = unique(record for row in own for record in row.records)
        # The cost of each experiment, with all its rows and teachers.
        experiments = {row.board.name: row.board for row in own}.values()
        trained = {board.manifest.title: unique(r for row in board.rows for r in row.records) for board in experiments}
        costs = [
            f"{title}: {len(group(same, _run))} runs, {hours} hours in all."
            for title, same in trained.items()
            if (hours := _hours(same))
        ]
        built.append(
            Board(
                name=f"claims-{REFERENCE}" if reference else "claims",
                title=f"Claims of the paper at small size{', reference results' if reference else ''}",
                budget=None,
                columns=COLUMNS,
                rows=tuple(own),
                notes=(*NOTES, *costs, *notes.provenance_notes(records)),
            )
        )
    return built


def _hours(records: Sequence[Record]) -> str:
    """Training and evaluation of ``records``, each run's training once; empty if a training time is unknown."""
    trained = {_run(record): training_seconds(record) for record in records}
    if None in trained.values():
        return ""
    return f"{(sum(filter(None, trained.values())) + sum(record.seconds for record in records)) / 3600:.1f}"


def _run(record: Record) -> tuple[str, int | None]:
    """Return what all records of one run share, of whichever of its weights they are."""
    return record.config_hash, record.seed


def training_seconds(record: Record) -> float | None:
    """Return how long the run of ``record`` trained: as recorded, or else by its steps if their number is known."""
    if record.training_seconds is not None or record.step_seconds is None:
        return record.training_seconds
    trainer = record.training.get("trainer") or {}
    steps = trainer.get("steps_per_epoch")
    return record.step_seconds * steps * trainer["epochs"] if steps else None


def _number(name: str, sign: str = "") -> Callable[[ClaimRow], str]:
    """Return the function that writes a number of the outcome, in percentage points or in the unit of its column."""
    return lambda row: f"{row.column.scale * getattr(row.outcome, name):{sign}.2f}"


COLUMNS: tuple[ClaimColumn, ...] = (
    ClaimColumn(
        header="Claim",
        cell=lambda row: row.claim.text,
        data={
            "claim": lambda row: row.claim.text,
            "better": lambda row: row.claim.better,
            "than": lambda row: row.claim.than,
            "column": lambda row: row.claim.column,
        },
        essential=True,
    ),
    ClaimColumn.alike("Paper", "source", lambda row: row.claim.source),
    ClaimColumn.alike("Experiment", "experiment", lambda row: row.board.manifest.name),
    # The page filters by this column: one experiment may have runs of both budgets.
    ClaimColumn.alike("Budget", "budget", lambda row: str(row.board.budget)),
    ClaimColumn(
        header="Here",
        align="r",
        cell=lambda row: (
            "{} [{}, {}]".format(*(_number(name, "+")(row) for name in ("difference", "low", "high")))
            + ("" if row.column.unit == "%" else f" {row.column.unit}")
        ),
        data={name: _number(name) for name in ("difference", "low", "high")},
    ),
    ClaimColumn(
        header="p",
        align="r",
        cell=lambda row: "<0.001" if row.outcome.p < 0.001 else f"{row.outcome.p:.2g}",
        data={"p": lambda row: f"{row.outcome.p:.3g}"},
    ),
    ClaimColumn(
        header="Seeds",
        align="r",
        cell=lambda row: str(len(row.outcome.seeds)),
        data={"seeds": lambda row: " ".join(map(str, row.outcome.seeds))},
    ),
    ClaimColumn.alike("n", "n", lambda row: str(row.outcome.n), align="r"),
    ClaimColumn.alike("Verdict", "verdict", lambda row: row.verdict, essential=True),
    ClaimColumn.alike("Hours", "hours", lambda row: _hours(row.records), align="r"),
)
