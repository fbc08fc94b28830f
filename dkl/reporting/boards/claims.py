"""Claims of the paper and our own, and whether runs of small experiments show them: one row per claim with a ``text``.

The verdict follows from the 95 % interval of the paired difference. It agrees if the interval lies on the claimed side
of 0, disagrees if it lies on the other side, and the difference is not visible at this size if the interval holds 0.
Two rows claimed to be the same agree if the interval lies within the margin of the claim, and disagree if it lies
outside. One seed gives no verdict: its interval knows the chance of the images, but not that of
training.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from dkl import manifests
from dkl.manifests import Claim, load
from dkl.records import Record
from dkl.reporting.boards import Board, ColumnSpec, notes
from dkl.reporting.boards.paper import PaperBoard, papers_order
from dkl.reporting.grouping import REFERENCE, TOPICS, group, is_reference, topic, unique
from dkl.reporting.statistics import Comparison

NOTES = (
    "Difference of the two methods on the same seeds and test images, in percentage points, with its 95 % interval, "
    "beside the paper's own difference. p is of one claim alone; Holm's correction is for all claims of this table.",
    "Values of bounded AutoAttack count only the images fooled in its sample; the interval and p allow for its bounds.",
    "Hours are those of training and evaluating the compared rows, on the hardware named below.",
)

GROUPS = ("Theorem", *TOPICS)
"""What claims are about, in the order of the rows."""

VERDICTS = ("agrees", "disagrees", "not visible at this size", "one seed only")


@dataclass(frozen=True)
class ClaimRow:
    """A ``claim``, the ``outcome`` of the comparison that tests it, and the ``board`` with the values compared.

    ``corrected`` is its p value after Holm's correction for all claims of the table.
    """

    claim: Claim
    outcome: Comparison
    board: PaperBoard
    corrected: float = 1.0

    @property
    def records(self) -> list[Record]:
        """The records of the two rows compared."""
        names = (self.claim.better, self.claim.than)
        return [record for row in self.board.rows if row.row.name in names for record in row.records]

    @property
    def group(self) -> str:
        """Which of ``GROUPS`` the claim belongs to."""
        is_theorem = self.claim.source == "the theorem"
        return GROUPS[0] if is_theorem else topic([record for row in self.board.rows for record in row.records])

    @property
    def papers(self) -> float | None:
        """The difference in the paper, in points; None if the claim is our own, or no table has both values."""
        table = re.fullmatch(r"Table (\d+)", self.claim.source)
        if self.claim.paper is None or table is None:
            return None
        better, than, column = self.claim.paper
        values = {row.name: row.paper for row in load(f"table-{int(table[1]):02d}").rows}
        # Some tables print the accuracy of the best epoch for some rows.
        first, second = (values[name].get(column, values[name].get("best")) for name in (better, than))
        return None if first is None or second is None else first - second

    @property
    def found(self) -> str:
        """The difference here with its interval, in percentage points or in the unit of its column."""
        numbers = (self.outcome.difference, self.outcome.low, self.outcome.high)
        text = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(self.column.scale * number for number in numbers))
        return text if self.column.unit == "%" else f"{text} {self.column.unit}"

    @property
    def details(self) -> str:
        """The paper's difference, ours, its p values, and what a training step costs, in sentences."""
        own, source = self.papers, self.claim.source
        paper = "Our own expectation" if not source else f"Paper, {source}" + ("" if own is None else f": {own:+.2f}")
        seeds = f"{len(self.outcome.seeds)} seed{'s' if len(self.outcome.seeds) > 1 else ''}"
        text = (
            f"{paper}. Here: {self.found}, {seeds}, p = {p_text(self.outcome.p)} (corrected: {p_text(self.corrected)})."
        )
        text = text.replace("= <", "< ")
        seconds = {row.row.name: [r.step_seconds for r in row.records if r.step_seconds] for row in self.board.rows}
        better, than = (seconds.get(name) for name in (self.claim.better, self.claim.than))
        if better and than and len(self.outcome.seeds) > 1:  # the time of one run says more about the machine's load
            text += f" A training step took {fmean(better) / fmean(than):.2f} times as long."
        return text

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``."""
        if len(self.outcome.seeds) == 1:
            return VERDICTS[3]
        margin = None if self.claim.within is None else self.claim.within / self.column.scale
        agrees = self.outcome.agrees(margin, self.column.more_is_better)
        return VERDICTS[2] if agrees is None else VERDICTS[not agrees]

    @property
    def column(self) -> manifests.Column:
        """The column that the claim is about."""
        return self.board.manifest.columns[self.claim.column]


Column = ColumnSpec[ClaimRow]


def claim_boards(boards: Sequence[PaperBoard]) -> list[Board[ClaimRow]]:
    """Build one board of all claims tested at small size, and one of those of reference records."""
    rows = [
        ClaimRow(board.manifest.claims[position], outcome, board)
        for board in sorted(boards, key=papers_order)
        # Smoke tests nothing, and at budget paper an experiment has its own board only.
        if board.budget in ("own", "mini")
        for position, outcome in board.comparisons.items()
        if board.manifest.claims[position].text and isinstance(outcome, Comparison)
    ]
    built = []
    for reference, own in group(rows, lambda row: any(map(is_reference, row.records))).items():
        corrected = holm([row.outcome.p for row in own])
        own = [replace(row, corrected=p) for row, p in zip(own, corrected, strict=True)]
        own.sort(key=lambda row: GROUPS.index(row.group))
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
                title=f"Claims of the paper and our own, at small size{', reference results' if reference else ''}",
                budget=None,
                columns=COLUMNS,
                rows=tuple(own),
                notes=(*summary(own), *NOTES, *costs, *notes.provenance_notes(records)),
            )
        )
    return built


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's corrected p ``values``: the i-th smallest of m times m - i + 1, at most 1, and never falling."""
    corrected, least = dict[int, float](), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        corrected[place] = least = min(1.0, max(least, (len(values) - rank) * values[place]))
    return [corrected[place] for place in range(len(values))]


def summary(rows: Sequence[ClaimRow]) -> list[str]:
    """Count the verdicts, of all claims of the paper first, then of each group; and what the correction leaves."""
    papers = [row for row in rows if row.claim.source]
    counted = {f"Of {len(papers)} claims of the paper tested at small size": papers}
    counted |= {f"{name}, with our own expectations": same for name, same in group(rows, lambda row: row.group).items()}
    lines = []
    for what, same in counted.items() if papers else ():
        verdicts = Counter(row.verdict for row in same)
        # "5 agree" but "1 agrees".
        counts = [(verdicts[name], name) for name in VERDICTS if name in verdicts]
        texts = [f"{count} {name if count == 1 else name.removesuffix('s')}" for count, name in counts]
        lines.append(f"{what}: {', '.join(texts)}.")
    # Equality within a margin has no p.
    if seen := [row for row in papers if row.verdict in VERDICTS[:2] and row.claim.within is None]:
        count = sum(row.corrected < 0.05 for row in seen)
        lines[0] += f" Holm's correction leaves {count} of the {len(seen)} visible differences significant."
    return lines


def p_text(p: float) -> str:
    """Return a p value with two digits."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


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


COLUMNS = (
    Column("About", lambda row: row.group),
    Column(
        "Claim",
        lambda row: row.claim.text,
        {
            "claim": lambda row: row.claim.text,
            "better": lambda row: row.claim.better,
            "than": lambda row: row.claim.than,
            "column": lambda row: row.claim.column,
        },
        essential=True,
    ),
    Column("Verdict", lambda row: row.verdict, "verdict", essential=True),
    Column(
        "Paper",
        lambda row: row.claim.source + ("" if row.papers is None else f": {row.papers:+.2f}"),
        {"source": lambda row: row.claim.source},
    ),
    Column(
        "Here",
        lambda row: row.found,
        {
            name: lambda row, name=name: f"{row.column.scale * getattr(row.outcome, name):.2f}"  # type: ignore[misc]
            for name in ("difference", "low", "high")
        },
        align="r",
    ),
    Column("p", lambda row: p_text(row.outcome.p), {"p": lambda row: f"{row.outcome.p:.3g}"}, align="r"),
    Column("p, Holm", lambda row: p_text(row.corrected), align="r"),
    Column(
        "Seeds",
        lambda row: str(len(row.outcome.seeds)),
        {"seeds": lambda row: " ".join(map(str, row.outcome.seeds))},
        align="r",
    ),
    Column("n", lambda row: str(row.outcome.n), "n", align="r"),
    Column("Experiment", lambda row: row.board.manifest.name, "experiment"),
    # The page filters by this column: one experiment may have runs of both budgets.
    Column("Budget", lambda row: str(row.board.budget), "budget"),
    Column("Hours", lambda row: _hours(row.records), "hours", align="r"),
    # Machines read these columns last.
    Column(
        data={
            "about": lambda row: row.group,
            "p_holm": lambda row: f"{row.corrected:.3g}",
            "paper_difference": lambda row: "" if row.papers is None else f"{row.papers:.2f}",
        }
    ),
)
