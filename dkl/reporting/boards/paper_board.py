"""A table of the paper as a board: its rows, and of every column the paper's figure, ours and the difference.

Only ours at budget paper are subtracted from the paper's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dkl.manifests import Column, Manifest, ManifestRow
from dkl.manifests.manifest import Figures
from dkl.records import Record
from dkl.reporting.boards import footnotes
from dkl.reporting.boards.base import NONE, budget_title, interval_cell, plain, seeds_cell
from dkl.reporting.formats.table import Spec, TextTable, tabulated
from dkl.reporting.grouping import group
from dkl.reporting.statistics.compare import Comparison
from dkl.reporting.statistics.estimates import Estimate, Interval, around, student
from dkl.reporting.statistics.measured import SHARES, Measured

Cells = Mapping[str, Mapping[int, Measured]]
"""What is measured of a row, by column and seed."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the manifest, the figures ``printed`` of it in percent or their unit, and what is measured of it."""

    row: ManifestRow
    printed: Figures
    cells: Cells

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that have any measurement."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell}))

    @property
    def records(self) -> list[Record]:
        """The evaluations that count, each once."""
        used = (record for cell in self.cells.values() for one in cell.values() for record in one.records)
        return list({record.id: record for record in used}.values())

    def estimate(self, key: str) -> Estimate | None:
        """The mean of a column over seeds."""
        values = [one.value for one in self.cells.get(key, {}).values()]
        return Estimate.over(values) if values else None

    def interval(self, key: str, column: Column) -> Interval | None:
        """The 95 % interval of a column: over seeds where there are several, else over images where it is a share."""
        measured = list(self.cells.get(key, {}).values())
        values = [one.value for one in measured]
        if len(values) > 1 and column.unit != "%":
            return student(values)
        if len(values) > 1 or (values and column.metric in SHARES):
            return around(values, measured[0].records[0].n)
        return None


@dataclass(frozen=True, kw_only=True)
class PaperBoard:
    """A table of the paper at one budget; a ``budget`` of None is the paper's figures alone.

    ``comparisons`` are by the number of the manifest's claim; text is why one cannot be made.
    """

    manifest: Manifest
    budget: str | None
    rows: tuple[PaperRow, ...]
    comparisons: dict[int, Comparison | str]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file name without an ending, such as ``table-02-mini``."""
        return f"{self.manifest.name}-{self.budget}" if self.budget else self.manifest.name

    @property
    def title(self) -> str:
        """The table and the budget; a smoke board says that it is no result."""
        return f"{self.manifest.title} ({budget_title(self.budget) if self.budget else 'figures of the paper'})"

    def table(self) -> TextTable:
        """For people."""
        return self._table(list(self._described()) + list(self._columns()))

    def data(self) -> TextTable:
        """For machines: one plain number a cell, empty where there is none."""
        found = self._table(list(self._plain_columns()))
        return replace(found, alignments="l" * len(found.header))

    def _table(self, columns: Sequence[Spec[PaperRow]]) -> TextTable:
        records = tuple(tuple(record.id for record in row.records) for row in self.rows)
        return tabulated(columns, self.rows, title=self.title, notes=self.notes, records=records)

    @property
    def _printer(self) -> str:
        """Whose the printed figures are."""
        return "paper" if any(row.row.paper for row in self.rows) else "published"

    def _shown(self) -> list[str]:
        return list(dict.fromkeys(key for row in self.rows for key in row.row.show))

    def _described(self) -> Iterator[Spec[PaperRow]]:
        for key in self._shown():
            yield key, "l", _show(key, NONE)
        yield "Method", "l", lambda row: row.row.label

    def _columns(self) -> Iterator[Spec[PaperRow]]:
        """The paper's figure, ours and the difference of every column; of what is not measured the first alone."""
        for key, column in self.manifest.columns.items():
            unit = f" ({column.unit})"
            measured = self.budget is not None and column.metric != "paper"
            yield f"{column.title}{f', {self._printer}' if measured else ''}{unit}", "r", _paper(key, column)
            if measured:
                yield f"{column.title}, ours{unit}", "r", _ours(key, column)
            if measured and self.budget == "paper":
                yield f"{column.title}, difference", "r", _difference(key, column)
        if self.budget is not None:
            yield "n", "r", lambda row: ", ".join(map(str, sorted({r.n for r in row.records}))) or NONE
            yield "Seeds", "l", _seeds

    def _plain_columns(self) -> Iterator[Spec[PaperRow]]:
        yield "row", "l", lambda row: row.row.name
        yield "method", "l", lambda row: row.row.label
        for key in self._shown():
            yield key.lower().replace(" ", "_"), "l", _show(key, "")
        yield "origin", "l", lambda row: row.row.origin or ""
        yield "quoted", "l", lambda row: str(row.row.quoted is not None).lower()
        yield "budget", "l", lambda row: self.budget or ""
        for key, column in self.manifest.columns.items():
            yield f"{key}_{self._printer}", "r", _plain_paper(key)
            if self.budget is not None and column.metric != "paper":
                yield from _numbers(key, column)
            if self.budget == "paper" and column.metric != "paper":
                yield f"{key}_difference", "r", _difference(key, column, none="")
        if self.budget is not None:
            yield "n", "r", lambda row: " ".join(map(str, sorted({r.n for r in row.records})))
            yield "seed_list", "l", lambda row: " ".join(map(str, row.seeds))
            yield from self._claims()

    def _claims(self) -> Iterator[Spec[PaperRow]]:
        """Of each row its first, second, … claim to be better than another: which, in what, and by how much."""
        own: dict[str, list[int]] = group(self.comparisons, lambda number: self.manifest.claims[number].better)
        for place in range(max(map(len, own.values()), default=0)):
            for name, value in _CLAIM.items():

                def cell(row: PaperRow, place: int = place, value: Callable[..., str] = value) -> str:
                    numbers = own.get(row.row.name, [])
                    if place >= len(numbers):
                        return ""
                    claim = self.manifest.claims[numbers[place]]
                    return value(claim, self.comparisons[numbers[place]], self.manifest.columns[claim.column])

                yield f"claim_{place + 1}_{name}", "l", cell


def _compared(attribute: str) -> Callable[..., str]:
    """A number of a comparison for machines; empty where it cannot be made."""
    return lambda claim, found, column: "" if isinstance(found, str) else _plain(getattr(found, attribute), column)


_CLAIM: dict[str, Callable[..., str]] = {
    "than": lambda claim, found, column: claim.than,
    "column": lambda claim, found, column: claim.column,
    **{name: _compared(name) for name in ("difference", "low", "high")},
    "p": lambda claim, found, column: "" if isinstance(found, str) else f"{found.p:.3g}",
}


def _plain(value: float | None, column: Column) -> str:
    """A measurement for machines: percent with two decimals, or as it is."""
    return plain(value) if column.unit == "%" else "" if value is None else f"{value:.6g}"


def _show(key: str, none: str) -> Callable[[PaperRow], str]:
    return lambda row: row.row.show.get(key, none)


def _plain_paper(key: str) -> Callable[[PaperRow], str]:
    return lambda row: f"{row.printed[key]:g}" if key in row.printed else ""


def _paper(key: str, column: Column) -> Callable[[PaperRow], str]:
    def cell(row: PaperRow) -> str:
        std = row.row.paper_std.get(key)
        text = footnotes.figure(row.printed.get(key), column.unit)
        return text if std is None else f"{text} ± {footnotes.figure(std, column.unit)}"

    return cell


def _ours(key: str, column: Column) -> Callable[[PaperRow], str]:
    """Mean, standard deviation and interval; and the number of seeds where the row has others as well."""

    def cell(row: PaperRow) -> str:
        found, interval = row.estimate(key), row.interval(key, column)
        if found is None:
            return NONE
        if column.unit == "%":
            text, around = str(found), interval_cell(interval)
        else:
            text = f"{found.mean:.4g}" if found.std is None else f"{found.mean:.4g} ± {found.std:.2g}"
            around = NONE if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        seeds = row.cells[key]
        fewer = "" if len(seeds) == len(row.seeds) else f" (of seed {', '.join(map(str, seeds))})"
        return text + ("" if interval is None else f" {around}") + fewer

    return cell


def _difference(key: str, column: Column, none: str = NONE) -> Callable[[PaperRow], str]:
    """Ours less the paper's, in points or the column's unit."""

    def cell(row: PaperRow) -> str:
        ours, paper = row.estimate(key), row.printed.get(key)
        if ours is None or paper is None:
            return none
        return f"{ours.mean * (100 if column.unit == '%' else 1) - paper:+.2f}"

    return cell


def _seeds(row: PaperRow) -> str:
    return "quoted" if row.row.quoted else seeds_cell(row.seeds) if row.seeds else NONE


def _numbers(key: str, column: Column) -> Iterator[Spec[PaperRow]]:
    """Mean, standard deviation, interval and number of seeds of a column, for machines."""

    def number(place: int) -> Callable[[PaperRow], str]:
        def cell(row: PaperRow) -> str:
            found, interval = row.estimate(key), row.interval(key, column) or (None, None)
            return _plain((found.mean, found.std, *interval)[place], column) if found else ""

        return cell

    for place, name in enumerate(("mean", "std", "low", "high")):
        yield f"{key}_{name}", "r", number(place)
    yield f"{key}_seeds", "r", lambda row: str(len(row.cells.get(key, {})) or "")
