"""Published rows of a leaderboard, from the manifests of tables that name RobustBench's entries.

One row a pair of accuracies: the paper's and RobustBench's are one where they agree, and two where they do not.
"""

from collections.abc import Iterator, Sequence

from dkl.manifests import Manifest, ManifestRow
from dkl.reporting.boards.base import NONE
from dkl.reporting.boards.leaderboard import LeaderboardRow
from dkl.reporting.grouping import Threat
from dkl.reporting.statistics.estimates import Estimate
from dkl.threat import AUTOATTACK, parse_attacks

ROBUSTBENCH = "RobustBench "
"""Begins the name of a source; the model's id follows."""

RADIUS = 8 / 255
"""RobustBench's for CIFAR, which is these data sets' customary one."""


def published(manifests: Sequence[Manifest]) -> dict[Threat, list[LeaderboardRow]]:
    """Unranked rows by data set, norm and radius, in the manifests' order."""
    found: dict[Threat, list[LeaderboardRow]] = {}
    for manifest in manifests:
        if any(source.startswith(ROBUSTBENCH) for entry in manifest.rows for source in entry.published):
            found.setdefault(_threat(manifest), []).extend(_rows(manifest))
    return found


def _threat(manifest: Manifest) -> Threat:
    """The data set of all its rows, at RobustBench's radius."""
    name = next(text.removeprefix("data=") for text in manifest.overrides if text.startswith("data="))
    return name, "Linf", round(RADIUS, 9)


def _rows(manifest: Manifest) -> Iterator[LeaderboardRow]:
    columns = manifest.columns.items()
    clean = next(key for key, column in columns if column.metric == "clean")
    robust = next(
        key
        for key, column in columns
        if (column.metric, column.eps) == ("robust", None) and parse_attacks(column.attacks) == list(AUTOATTACK)
    )
    for entry in manifest.rows:
        pairs: dict[tuple[float, float], list[str]] = {}
        for source, figures in ({f"Table {manifest.number}": entry.paper} | entry.published).items():
            if clean in figures and robust in figures and source.startswith(("Table", ROBUSTBENCH)):
                pairs.setdefault((figures[clean], figures[robust]), []).append(source)
        yield from (_row(entry, *pair, ", ".join(sources)) for pair, sources in pairs.items())


def _row(entry: ManifestRow, clean: float, robust: float, source: str) -> LeaderboardRow:
    """The row of accuracies in percent."""
    described = ", ".join(cell for key, cell in entry.show.items() if key != "Architecture")
    return LeaderboardRow(
        rank=None,
        method=f"{entry.label} ({described})" if described else entry.label,
        architecture=entry.show.get("Architecture", NONE).replace("WRN", "WideResNet"),
        additional_data=False,
        synthetic="generated" in described,
        weights=NONE,
        attacks="AutoAttack",
        autoattack=True,
        n=None,
        seeds=(),
        records=(),
        clean=Estimate(clean / 100, None),
        robust=Estimate(robust / 100, None),
        source=source,
    )
