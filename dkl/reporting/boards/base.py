"""What every board has in common: which records it holds, how they fold to rows, how numbers and seeds are written."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dkl.records import BUDGETS, Record
from dkl.reporting.boards import notes
from dkl.reporting.formats.table import TextTable
from dkl.reporting.grouping import group, newest, row
from dkl.reporting.statistics.estimates import Estimate, percent

NONE = "\N{EN DASH}"

T = TypeVar("T")


class Board(Protocol):
    """A table of results."""

    @property
    def name(self) -> str:
        """Its file name without an ending."""

    @property
    def budget(self) -> str | None:
        """That of its records; None where it has none."""

    def table(self) -> TextTable:
        """For people."""

    def data(self) -> TextTable:
        """For machines: one plain number a cell, empty where there is none."""


@dataclass(frozen=True)
class Fold:
    """The records of one board: ``shown`` is one evaluation a seed, ``rows`` are they by row, the best first."""

    shown: list[Record]
    rows: list[list[Record]]
    left_out: list[str]


def fold(
    records: Sequence[Record],
    include_smoke: bool,
    place: Callable[[Record], Hashable],
    order: Callable[[Sequence[Record]], tuple],
    board: Callable[[Fold], T],
) -> list[T]:
    """One ``board`` a ``place`` and budget, places sorted; those of budget ``smoke`` only with ``include_smoke``.

    Rows of a board are sorted by ``order``. Without smoke boards, the others count the records that were left out.
    """
    boards: list[T] = []
    for _, here in sorted(group(records, place).items()):
        budgets = group(here, lambda record: record.budget)
        smoke = [] if include_smoke else budgets.pop("smoke", [])
        for budget in sorted(budgets, key=BUDGETS.index):
            members = budgets[budget]
            shown = newest(members)
            rows = sorted(group(shown, row).values(), key=order)
            boards.append(board(Fold(shown, rows, notes.left_out(members, len(smoke)))))
    return boards


def budget_title(budget: str) -> str:
    """The budget in a title; a smoke board says that it is no result."""
    return "smoke: no result" if budget == "smoke" else f"budget {budget}"


def marked(method: str, additional_data: bool, synthetic: bool) -> str:
    """The method with the marks that the notes explain."""
    return method + ("†" if additional_data else "") + ("‡" if synthetic else "")


def interval_cell(interval: tuple[float, float] | None) -> str:
    """In percent, such as ``[30.1, 33.8]``."""
    return NONE if interval is None else "[{:.1f}, {:.1f}]".format(*(100 * bound for bound in interval))


def seeds_cell(seeds: Sequence[int | None]) -> str:
    """How many seeds, and which; none of weights trained elsewhere."""
    return NONE if not seeds or None in seeds else f"{len(seeds)} ({', '.join(map(str, seeds))})"


def numbers(*estimates: Estimate | None) -> list[str]:
    """Mean and standard deviation of each for machines, in percent; empty where there is none."""
    values = (value for found in estimates for value in ((found.mean, found.std) if found else (None, None)))
    return [plain(value) for value in values]


def plain(fraction: float | None) -> str:
    """``fraction`` in percent for machines; empty where there is none."""
    return "" if fraction is None else percent(fraction)
