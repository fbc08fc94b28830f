"""Boards: leaderboards, accuracy tables, entries, claims and the paper's tables, all of one class.

A board is rows and column specifications, from which both of its tables follow. One table is for people, with mean and
spread in one cell; the other is for machines, with one plain value per cell. Here are also the cells that all boards
write alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from dkl.records import Record
from dkl.records.metrics import Interval
from dkl.reporting.formats import TextTable
from dkl.reporting.statistics import percent

NONE = "\N{EN DASH}"
"""A cell for people without a value."""


class BoardRow(Protocol):
    """A row of any board."""

    @property
    def records(self) -> Sequence[Record]:
        """What the row is computed from; empty if it was published."""


R = TypeVar("R", bound=BoardRow)
Cell = Callable[[R], str]


@dataclass(frozen=True)
class ColumnSpec(Generic[R]):
    """A column of the table for people, columns of the table for machines, or both.

    ``header``, ``cell`` and ``align`` (``l`` or ``r``) are for people, and are ignored without a header; an empty cell
    is shown as a dash. ``data`` holds the machines' cells by header; a text is the header of the same cells. If
    ``only_if`` is given, people see the column only if it is true for some row. A narrow screen shows the ``essential``
    columns first.
    """

    header: str | None = None
    cell: Cell[R] = field(default=lambda row: "")
    data: str | Mapping[str, Cell[R]] = field(default_factory=dict)
    align: str = "l"
    only_if: Callable[[R], bool] | None = None
    essential: bool = False

    @property
    def plain(self) -> Mapping[str, Cell[R]]:
        """The machines' cells by header."""
        return {self.data: self.cell} if isinstance(self.data, str) else self.data


@dataclass(frozen=True, kw_only=True)
class Board(Generic[R]):
    """A table of results.

    ``name`` is its file name without an extension. ``budget`` is that of its records, None for published values only.
    ``notes`` are printed below the table. ``part``: its records evaluate only a part of the test set.
    """

    name: str
    title: str
    budget: str | None
    # Functions have no useful equality: boards are equal if their rows and notes are.
    columns: tuple[ColumnSpec[R], ...] = field(repr=False, compare=False)
    rows: tuple[R, ...]
    notes: tuple[str, ...]
    part: bool = False

    def table(self) -> TextTable:
        """Return the table for people."""
        shown = [c for c in self.columns if c.header and (c.only_if is None or any(map(c.only_if, self.rows)))]
        essential = frozenset(str(column.header) for column in shown if column.essential)
        table = self._table([(str(column.header), column.cell) for column in shown])
        rows = tuple(tuple(text or NONE for text in row) for row in table.rows)
        return replace(table, rows=rows, alignments="".join(column.align for column in shown), essential=essential)

    def data(self) -> TextTable:
        """Return the table for machines: one plain value per cell, empty if there is none."""
        # Columns keep this order for machines too, because programs may read a CSV file by position.
        return self._table([item for column in self.columns for item in column.plain.items()])

    def _table(self, cells: Sequence[tuple[str, Cell[R]]]) -> TextTable:
        return TextTable(
            title=self.title,
            header=tuple(header for header, _ in cells),
            rows=tuple(tuple(cell(row) for _, cell in cells) for row in self.rows),
            alignments="l" * len(cells),
            notes=self.notes,
            records=tuple(tuple(record.id for record in row.records) for row in self.rows),
        )


def budget_title(budget: str) -> str:
    """Return the budget as a title prints it. Budget smoke is marked as no result."""
    return "smoke: no result" if budget == "smoke" else f"budget {budget}"


def method_cell(method: str, *, additional_data: bool, synthetic: bool) -> str:
    """Return the method with the marks † and ‡ that the notes explain."""
    return method + ("†" if additional_data else "") + ("‡" if synthetic else "")


def interval_cell(interval: Interval | None) -> str:
    """Return an interval in percent, such as ``[30.1, 33.8]``."""
    return NONE if interval is None else "[{:.1f}, {:.1f}]".format(*(100 * bound for bound in interval))


def seeds_cell(seeds: Sequence[int | None]) -> str:
    """Return the number of seeds and their list. Weights trained elsewhere have none."""
    return NONE if not seeds or None in seeds else f"{len(seeds)} ({', '.join(map(str, seeds))})"


def plain_percent(fraction: float | None) -> str:
    """Return ``fraction`` in percent for machines, empty if None."""
    return "" if fraction is None else percent(fraction)


def plain_flag(value: bool) -> str:
    """Return ``true`` or ``false``."""
    return str(value).lower()


def constants(**values: str) -> ColumnSpec[Any]:
    """Return columns for machines that say the same in every row."""

    def cell(value: str) -> Cell[Any]:
        return lambda row: value

    return ColumnSpec(data={header: cell(value) for header, value in values.items()})
