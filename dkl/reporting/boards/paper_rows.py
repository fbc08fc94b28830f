"""The rows of the paper's tables, what is measured of each, and their cells.

A row has the published values, the measurements of our runs, and those of published weights, which are never mixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dkl.manifests import Column, Manifest, ManifestRow
from dkl.manifests.manifest import Values
from dkl.records import Record
from dkl.records.metrics import Interval
from dkl.reporting.boards import interval_cell, notes, plain_percent
from dkl.reporting.grouping import group, is_reference, unique
from dkl.reporting.statistics import (
    IMAGE_FRACTIONS,
    Measurement,
    SeedMean,
    accuracy_interval,
    measure,
    measure_weights,
    student,
)

Measurements = Mapping[str, Mapping[int, Measurement]]
"""The measurements of a row by column and seed."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the manifest, its ``published`` values (percent, or the column's unit) and our ``measurements``.

    ``of_weights`` are those of published weights, which are never mixed with trained runs; they have seed 0 here.
    """

    row: ManifestRow
    published: Values
    measurements: Measurements
    of_weights: Measurements = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds with any measurement."""
        return tuple(sorted({seed for cell in self.measurements.values() for seed in cell}))

    @property
    def records(self) -> list[Record]:
        """All records that a measurement uses, each once."""
        return unique(record for cell in self.measurements.values() for one in cell.values() for record in one.records)

    @property
    def sizes(self) -> list[str]:
        """The numbers of test images."""
        return [str(n) for n in sorted({record.n for record in self.records})]

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of ``records``, then those of published weights."""
        return tuple(record.id for record in (*self.records, *self.weights.records))

    @property
    def weights(self) -> "PaperRow":
        """This row with the measurements of published weights in the place of ours."""
        return PaperRow(self.row, self.published, self.of_weights)

    def mean(self, key: str) -> SeedMean | None:
        """Return the mean of a column over seeds; None if it is not measured."""
        values = [one.value for one in self.measurements.get(key, {}).values()]
        return SeedMean.over(values) if values else None

    def interval(self, key: str, column: Column) -> Interval | None:
        """Return the 95 % interval of a column over seeds, or over images for one seed of an image fraction."""
        measured = list(self.measurements.get(key, {}).values())
        values = [one.value for one in measured]
        # Only percentages are bounded: seconds must not be cut to [0, 1].
        if not values or column.unit != "%":
            return student(values) if values else None
        n = measured[0].records[0].n if column.metric in IMAGE_FRACTIONS else None
        return accuracy_interval(values, n, [one.slack for one in measured])


@dataclass(frozen=True)
class Quantity:
    """The cells of one of the manifest's columns."""

    key: str
    column: Column

    def published(self, row: PaperRow) -> str:
        """The published value, with its standard deviation if that is published too."""
        std = row.row.paper_std.get(self.key)
        text = notes.published_value(row.published.get(self.key), self.column.unit)
        return text if std is None else f"{text} ± {notes.published_value(std, self.column.unit)}"

    def ours(self, row: PaperRow) -> str:
        """Mean, standard deviation and interval. The seeds are listed if the row has others as well."""
        mean, interval = row.mean(self.key), row.interval(self.key, self.column)
        if mean is None:
            return ""
        if self.column.unit == "%":
            text, bounds = str(mean), interval_cell(interval)
        else:
            text = f"{mean.mean:.4g}" if mean.std is None else f"{mean.mean:.4g} ± {mean.std:.2g}"
            bounds = "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
        seeds = row.measurements[self.key]
        # A column evaluated for some of the row's seeds only must say so.
        fewer = "" if len(seeds) == len(row.seeds) else f" (of seed {', '.join(map(str, seeds))})"
        return text + ("" if interval is None else f" {bounds}") + fewer

    def number(self, row: PaperRow, name: str) -> str:
        """The ``mean`` for machines, its ``std``, or an end of the interval, ``low`` or ``high``."""
        mean, (low, high) = row.mean(self.key), row.interval(self.key, self.column) or (None, None)
        return self.plain({"low": low, "high": high}.get(name, getattr(mean, name, None)))

    def plain(self, value: float | None) -> str:
        """Return a measurement for machines: percent with two decimals, or a number in the column's unit."""
        if self.column.unit == "%":
            return plain_percent(value)
        return "" if value is None else f"{value:.6g}"

    def difference(self, row: PaperRow) -> str:
        """Ours minus the published value, in points or the column's unit; empty if one of them is missing."""
        ours, published = row.mean(self.key), row.published.get(self.key)
        return "" if ours is None or published is None else f"{ours.mean * self.column.scale - published:+.2f}"


def foreign_records(records: Sequence[Record]) -> list[Record]:
    """The evaluations of weights that were trained elsewhere."""
    return [record for record in records if record.seed is None and not is_reference(record)]


def make_rows(
    manifest: Manifest, evaluated: Mapping[str, Sequence[Record]], foreign: Sequence[Record]
) -> list[PaperRow]:
    """The rows with the measurements of the records ``evaluated`` of each, and of its published weights.

    They are in the manifest's order, each teacher before the first row that names it. If the paper has no values, those
    of each row's first other source are published.
    """
    ordered: dict[str, ManifestRow] = {}
    for row in manifest.rows:
        if row.teacher:
            ordered.setdefault(manifest.teachers[row.teacher].name, manifest.teachers[row.teacher])
        ordered[row.name] = row
    columns, rows, of_paper = manifest.columns, [], any(row.paper for row in manifest.rows)
    by_file = group(foreign, lambda record: (record.dataset, record.checkpoint))
    for row in ordered.values():
        published = row.paper if of_paper else next(iter(row.published.values()), {})
        network = manifest.network(row) if foreign else None
        of_weights = by_file.get((network.dataset, "/".join(network.path.split("/")[-2:])), []) if network else []
        ours = {key: measure(evaluated.get(row.name, []), key, columns) for key in columns}
        weights = {key: measure_weights(of_weights, key, columns) for key in columns}
        rows.append(PaperRow(row, published, ours, weights))
    return rows
