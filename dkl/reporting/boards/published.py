"""Published rows of leaderboards, from the manifests that name RobustBench's entries.

The paper's values and RobustBench's are one row if they agree, and two rows if they do not.
"""

from collections.abc import Iterator, Sequence

from dkl.manifests import Manifest, ManifestRow
from dkl.reporting.boards.cells import NONE
from dkl.reporting.boards.configuration import ConfigurationRow
from dkl.reporting.grouping import ThreatModel
from dkl.reporting.statistics.seeds import SeedMean
from dkl.threat import AUTOATTACK, parse_attacks

ROBUSTBENCH = "RobustBench "
"""Sources that start with this end with RobustBench's model id."""

RADIUS = 8 / 255
"""The Linf radius of RobustBench's CIFAR leaderboards, in [0, 1] pixel units."""


def published_rows(manifests: Sequence[Manifest]) -> dict[ThreatModel, list[ConfigurationRow]]:
    """Return unranked rows by threat model, in the manifests' order."""
    found: dict[ThreatModel, list[ConfigurationRow]] = {}
    for manifest in manifests:
        if any(source.startswith(ROBUSTBENCH) for row in manifest.rows for source in row.published):
            found.setdefault(_threat_model(manifest), []).extend(_rows(manifest))
    return found


def _threat_model(manifest: Manifest) -> ThreatModel:
    dataset = next(text.removeprefix("data=") for text in manifest.overrides if text.startswith("data="))
    return dataset, "Linf", round(RADIUS, 9)


def _rows(manifest: Manifest) -> Iterator[ConfigurationRow]:
    """Yield one row per distinct pair of clean and robust accuracy."""
    columns = manifest.columns.items()
    clean = next(key for key, column in columns if column.metric == "clean")
    robust = next(
        key
        for key, column in columns
        if (column.metric, column.eps) == ("robust", None) and parse_attacks(column.attacks) == list(AUTOATTACK)
    )
    for row in manifest.rows:
        pairs: dict[tuple[float, float], list[str]] = {}
        for source, values in ({f"Table {manifest.number}": row.paper} | row.published).items():
            # READMEs and logs are left out: RobustBench evaluated the same checkpoints independently.
            if clean in values and robust in values and source.startswith(("Table", ROBUSTBENCH)):
                pairs.setdefault((values[clean], values[robust]), []).append(source)
        yield from (_published_row(row, *pair, ", ".join(sources)) for pair, sources in pairs.items())


def _published_row(row: ManifestRow, clean: float, robust: float, source: str) -> ConfigurationRow:
    """Return the row of two accuracies in percent."""
    described = ", ".join(cell for key, cell in row.show.items() if key != "Architecture")
    return ConfigurationRow(
        method=f"{row.label} ({described})" if described else row.label,
        # The paper abbreviates WideResNet; leaderboards spell it out as RobustBench does.
        architecture=row.show.get("Architecture", NONE).replace("WRN", "WideResNet"),
        synthetic=any(word in described for word in ("generated", "synthetic")),
        attacks="AutoAttack",
        autoattack=True,
        means={"clean": SeedMean(clean / 100, None), "robust": SeedMean(robust / 100, None)},
        source=source,
    )
