"""The columns of a paper table: per quantity the published value, ours and the difference.

Differences exist only at budget ``paper``: other budgets are not comparable with published values.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from dkl.manifests import Column, Manifest
from dkl.reporting.boards.board import Cell, ColumnSpec
from dkl.reporting.boards.cells import NONE, interval_cell, plain_flag, plain_percent, seeds_cell
from dkl.reporting.boards.paper.board import PaperRow
from dkl.reporting.boards.paper.notes import published_value
from dkl.reporting.grouping import group
from dkl.reporting.statistics.compare import Comparison

PaperColumn = ColumnSpec[PaperRow]

WIDEST = 4
"""The differences of more quantities than this are left to machines: people could not see all columns at once."""


def paper_columns(
    manifest: Manifest, budget: str | None, rows: Sequence[PaperRow], comparisons: Mapping[int, Comparison | str]
) -> tuple[PaperColumn, ...]:
    """Return the columns of a paper table at one budget. A ``budget`` of None leaves out ours."""
    publisher = "paper" if any(row.row.paper for row in rows) else "published"
    return (
        PaperColumn(data={"row": lambda row: row.row.name, "method": lambda row: row.row.label}),
        *map(_described, dict.fromkeys(key for row in rows for key in row.row.show)),
        PaperColumn(header="Method", cell=lambda row: row.row.label, essential=True),
        PaperColumn(
            data={
                "origin": lambda row: row.row.origin or "",
                "quoted": lambda row: plain_flag(row.row.quoted is not None),
                "budget": lambda row: budget or "",
            }
        ),
        *(
            spec
            for key, column in manifest.columns.items()
            for spec in (
                _quantity(manifest, key, budget, publisher)
                if manifest.kind or any(row.published for row in rows)
                else [_measured(manifest, key, column)]
            )
        ),
        *([] if budget is None else [_IMAGES, _SEEDS]),
        *([] if budget is None else _claims(manifest, comparisons)),
    )


def _described(key: str) -> PaperColumn:
    """Return a column that describes the rows, such as their architecture."""
    return PaperColumn(
        header=key,
        cell=lambda row: row.row.show.get(key, NONE),
        data={key.lower().replace(" ", "_"): lambda row: row.row.show.get(key, "")},
    )


def _headline(manifest: Manifest) -> str:
    """Return the most important quantity: AutoAttack at the usual radius, else robust accuracy, else the first."""
    columns = manifest.columns
    robust = [key for key, column in columns.items() if column.metric == "robust"]
    standard = [key for key in robust if (columns[key].attacks, columns[key].eps) == ("standard", None)]
    return next(iter((*standard, *robust, *columns)))


def _quantity(manifest: Manifest, key: str, budget: str | None, publisher: str) -> Iterator[PaperColumn]:
    """Yield the published value; and ours and the difference, if the column is measured at this budget."""
    column, essential = manifest.columns[key], key == _headline(manifest)
    # A column with metric "paper" is printed by the paper and never measured here.
    unit, ours = f" ({column.unit})", budget is not None and column.metric != "paper"
    yield PaperColumn(
        header=f"{column.header}, {publisher}{unit}" if ours else f"{column.header}{unit}",
        align="r",
        cell=_published(key, column),
        data={f"{key}_{publisher}": lambda row: f"{row.published[key]:g}" if key in row.published else ""},
        essential=essential,
    )
    if ours:
        yield PaperColumn(
            header=f"{column.header}, ours{unit}",
            align="r",
            cell=_ours(key, column),
            data=_ours_data(key, column),
            essential=essential,
        )
    if ours and budget == "paper":
        measured = sum(other.metric != "paper" for other in manifest.columns.values())
        yield PaperColumn(
            header=f"{column.header}, difference" if measured <= WIDEST else None,
            align="r",
            cell=_difference(key, column, none=NONE),
            data={f"{key}_difference": _difference(key, column, none="")},
        )


def _measured(manifest: Manifest, key: str, column: Column) -> PaperColumn:
    """Return the column of a quantity that nobody has published."""
    return PaperColumn(
        header=f"{column.header} ({column.unit})",
        align="r",
        cell=_ours(key, column),
        data=_ours_data(key, column),
        essential=key == _headline(manifest),
    )


_IMAGES = PaperColumn(
    header="n",
    align="r",
    cell=lambda row: ", ".join(map(str, sorted({r.n for r in row.records}))) or NONE,
    data={"n": lambda row: " ".join(map(str, sorted({r.n for r in row.records})))},
)
_SEEDS = PaperColumn(
    header="Seeds",
    cell=lambda row: "quoted" if row.row.quoted else seeds_cell(row.seeds),
    data={"seed_list": lambda row: " ".join(map(str, row.seeds))},
)


def _published(key: str, column: Column) -> Cell[PaperRow]:
    def cell(row: PaperRow) -> str:
        std = row.row.paper_std.get(key)
        text = published_value(row.published.get(key), column.unit)
        return text if std is None else f"{text} ± {published_value(std, column.unit)}"

    return cell


def _ours(key: str, column: Column) -> Cell[PaperRow]:
    """Mean, standard deviation and interval. The seeds are listed if the row has others as well."""

    def cell(row: PaperRow) -> str:
        mean, interval = row.mean(key), row.interval(key, column)
        if mean is None:
            return NONE
        if column.unit == "%":
            text, bounds = str(mean), interval_cell(interval)
        else:
            text = f"{mean.mean:.4g}" if mean.std is None else f"{mean.mean:.4g} ± {mean.std:.2g}"
            bounds = NONE if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        seeds = row.measurements[key]
        # A column evaluated for some of the row's seeds only must say so.
        fewer = "" if len(seeds) == len(row.seeds) else f" (of seed {', '.join(map(str, seeds))})"
        return text + ("" if interval is None else f" {bounds}") + fewer

    return cell


def _ours_data(key: str, column: Column) -> dict[str, Cell[PaperRow]]:
    """Mean, standard deviation, interval and number of seeds for machines."""

    def number(index: int) -> Cell[PaperRow]:
        def cell(row: PaperRow) -> str:
            mean, interval = row.mean(key), row.interval(key, column) or (None, None)
            return _plain((mean.mean, mean.std, *interval)[index], column) if mean else ""

        return cell

    numbers = {f"{key}_{name}": number(index) for index, name in enumerate(("mean", "std", "low", "high"))}
    return numbers | {f"{key}_seeds": lambda row: str(len(row.measurements.get(key, {})) or "")}


def _difference(key: str, column: Column, *, none: str) -> Cell[PaperRow]:
    """Ours minus the published value, in points or the column's unit; ``none`` if one of them is missing."""

    def cell(row: PaperRow) -> str:
        ours, published = row.mean(key), row.published.get(key)
        if ours is None or published is None:
            return none
        return f"{ours.mean * (100 if column.unit == '%' else 1) - published:+.2f}"

    return cell


def _plain(value: float | None, column: Column) -> str:
    """Return a measurement for machines: percent with two decimals, or a number in the column's unit."""
    if column.unit == "%":
        return plain_percent(value)
    return "" if value is None else f"{value:.6g}"


ClaimCell = Callable[[int], str]
"""A machine's cell from the position of a claim in the manifest."""


def _claims(manifest: Manifest, comparisons: Mapping[int, Comparison | str]) -> Iterator[PaperColumn]:
    """Yield, for machines, the comparisons in which a row is claimed to be better: ``claim_1_than``, …"""

    def number(name: str) -> ClaimCell:
        def cell(claim: int) -> str:
            found, column = comparisons[claim], manifest.columns[manifest.claims[claim].column]
            return "" if isinstance(found, str) else _plain(getattr(found, name), column)

        return cell

    def p_value(claim: int) -> str:
        found = comparisons[claim]
        return "" if isinstance(found, str) else f"{found.p:.3g}"

    cells: dict[str, ClaimCell] = {
        "than": lambda claim: manifest.claims[claim].than,
        "column": lambda claim: manifest.claims[claim].column,
        **{name: number(name) for name in ("difference", "low", "high")},
        "p": p_value,
    }
    # A row can be claimed better than several others: each claim has its own columns.
    own = group(comparisons, lambda claim: manifest.claims[claim].better)

    def of_row(position: int, cell: ClaimCell) -> Cell[PaperRow]:
        """Return the cell of a row's claim at ``position``, empty if it has fewer."""

        def found(row: PaperRow) -> str:
            claims = own.get(row.row.name, [])
            return cell(claims[position]) if position < len(claims) else ""

        return found

    for position in range(max(map(len, own.values()), default=0)):
        yield PaperColumn(data={f"claim_{position + 1}_{name}": of_row(position, cell) for name, cell in cells.items()})
