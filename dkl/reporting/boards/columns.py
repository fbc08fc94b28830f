"""Columns that leaderboards and accuracy boards have in common."""

from collections.abc import Callable

from dkl.reporting.boards.board import ColumnSpec
from dkl.reporting.boards.cells import NONE, interval_cell, method_cell, plain_flag, plain_percent, seeds_cell
from dkl.reporting.boards.configuration import ConfigurationRow

ConfigurationColumn = ColumnSpec[ConfigurationRow]


def constants(**values: str) -> ConfigurationColumn:
    """Return columns for machines that say the same in every row."""

    def cell(value: str) -> Callable[[ConfigurationRow], str]:
        return lambda row: value

    return ConfigurationColumn(data={header: cell(value) for header, value in values.items()})


def mean_column(
    header: str, metric: str, name: str, *, optional: bool = False, essential: bool = False
) -> ConfigurationColumn:
    """Return a metric's mean ± std in percent. Machines read ``<name>_mean`` and ``<name>_std``.

    People do not see an ``optional`` column that no row has. A narrow screen shows ``essential`` columns first.
    """

    def value(part: str) -> Callable[[ConfigurationRow], str]:
        return lambda row: plain_percent(getattr(row.means.get(metric), part, None))

    return ConfigurationColumn(
        header=header,
        align="r",
        cell=lambda row: str(row.means.get(metric, NONE)),
        data={f"{name}_{part}": value(part) for part in ("mean", "std")},
        only_if=(lambda row: metric in row.means) if optional else None,
        essential=essential,
    )


def interval_data(name: str) -> ConfigurationColumn:
    """Return the ends of the interval for machines, ``<name>_low`` and ``<name>_high``."""
    return ConfigurationColumn(
        data={
            f"{name}_low": lambda row: plain_percent(row.interval and row.interval[0]),
            f"{name}_high": lambda row: plain_percent(row.interval and row.interval[1]),
        }
    )


def images_cell(row: ConfigurationRow) -> str:
    """Return the number of test images, so that fewer than the dataset has cannot pass for all of them.

    Rows that say so themselves are on boards of parts, whose title says it.
    """
    if row.n is None:
        return NONE
    if row.part or row.n == row.test_images:
        return str(row.n)
    return f"{row.n} of {row.test_images}" if row.test_images else f"{row.n}, test set unknown"


# Columns that look the same on every board.
RANK = ConfigurationColumn(
    header="Rank",
    align="r",
    cell=lambda row: NONE if row.rank is None else str(row.rank),
    data={"rank": lambda row: "" if row.rank is None else str(row.rank)},
    essential=True,
)
METHOD = ConfigurationColumn(
    header="Method",
    cell=lambda row: method_cell(row.method, additional_data=row.additional_data, synthetic=row.synthetic),
    data={"method": lambda row: row.method, "additional_data": lambda row: plain_flag(row.additional_data)},
    essential=True,
)
SYNTHETIC = ConfigurationColumn(data={"synthetic_data": lambda row: plain_flag(row.synthetic)})
INTERVAL = ConfigurationColumn(header="95 % interval", align="r", cell=lambda row: interval_cell(row.interval))
ARCHITECTURE = ConfigurationColumn(
    header="Architecture",
    cell=lambda row: row.architecture,
    data={"architecture": lambda row: row.architecture},
)
WEIGHTS = ConfigurationColumn(header="Weights", cell=lambda row: row.weights)
WEIGHTS_DATA = ConfigurationColumn(data={"weights": lambda row: row.weights})
IMAGES = ConfigurationColumn(
    header="n",
    align="r",
    cell=images_cell,
    data={"n": lambda row: str(row.n or "")},
)
SEEDS = ConfigurationColumn(
    header="Seeds",
    cell=lambda row: seeds_cell(row.seeds),
    data={
        "seeds": lambda row: str(len(row.seeds) or ""),
        "seed_list": lambda row: " ".join(str(seed) for seed in row.seeds if seed is not None),
    },
)
SOURCE = ConfigurationColumn(
    header="Source",
    cell=lambda row: row.source or "ours",
    data={"source": lambda row: row.source or ""},
    only_if=lambda row: row.source is not None,
)
