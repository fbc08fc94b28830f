"""A table of the paper at one budget, and its rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from dkl.manifests import Column, Manifest, ManifestRow
from dkl.manifests.manifest import Values
from dkl.records import Record
from dkl.reporting.boards.board import Board
from dkl.reporting.statistics.compare import Comparison
from dkl.reporting.statistics.measurements import IMAGE_FRACTIONS, Measurement
from dkl.reporting.statistics.seeds import Interval, SeedMean, accuracy_interval, student

Measurements = Mapping[str, Mapping[int, Measurement]]
"""The measurements of a row by column and seed."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the manifest, its ``published`` values (percent, or the column's unit) and our ``measurements``."""

    row: ManifestRow
    published: Values
    measurements: Measurements

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds with any measurement."""
        return tuple(sorted({seed for cell in self.measurements.values() for seed in cell}))

    @property
    def records(self) -> list[Record]:
        """All records that a measurement uses, each once."""
        used = (record for cell in self.measurements.values() for one in cell.values() for record in one.records)
        return list({record.id: record for record in used}.values())

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of ``records``."""
        return tuple(record.id for record in self.records)

    def mean(self, key: str) -> SeedMean | None:
        """Return the mean of a column over seeds; None if it is not measured."""
        values = [one.value for one in self.measurements.get(key, {}).values()]
        return SeedMean.over(values) if values else None

    def interval(self, key: str, column: Column) -> Interval | None:
        """Return the 95 % interval of a column: over seeds, or over images for one seed of an image fraction."""
        measured = list(self.measurements.get(key, {}).values())
        if not measured:
            return None
        values = [one.value for one in measured]
        # Only percentages are bounded: seconds must not be cut to [0, 1].
        if column.unit != "%":
            return student(values)
        n = measured[0].records[0].n if column.metric in IMAGE_FRACTIONS else None
        return accuracy_interval(values, n, [one.slack for one in measured])


@dataclass(frozen=True, kw_only=True)
class PaperBoard(Board[PaperRow]):
    """A table of the paper at one budget. A ``budget`` of None has the published values only.

    ``comparisons`` are by the position of the manifest's claim. A text says why a comparison is impossible.
    """

    manifest: Manifest
    comparisons: Mapping[int, Comparison | str]
