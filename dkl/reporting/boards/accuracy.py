"""Accuracy boards: records without attacks (classification, distillation, segmentation), one per dataset and budget.

One row is one configuration. Budgets, numbers of images and test sets are never averaged together.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from dkl.records import SHOTS, Record
from dkl.reporting.boards import columns, notes
from dkl.reporting.boards.board import Board
from dkl.reporting.boards.cells import NONE, board_title
from dkl.reporting.boards.columns import ConfigurationColumn
from dkl.reporting.boards.configuration import BoardRecords, ConfigurationRow, descending, group_by_board
from dkl.reporting.grouping import seed_key
from dkl.reporting.names import slug

AccuracyBoard = Board[ConfigurationRow]


def accuracy_boards(records: Sequence[Record], include_smoke: bool = False) -> list[AccuracyBoard]:
    """Build one board per dataset and budget, and one for a part of the test set.

    Those of budget ``smoke`` only with ``include_smoke``.
    """
    accuracies = _fullest([record for record in records if record.accuracy_only])
    return [_board(found) for found in group_by_board(accuracies, _order, include_smoke=include_smoke)]


def _fullest(records: Sequence[Record]) -> list[Record]:
    """The ``records`` without those that another one of the same weights and images repeats, with corruptions."""

    def measured(record: Record) -> tuple[Hashable, ...]:
        return *seed_key(record), record.checkpoint_sha256

    repeated = {measured(record) for record in records if record.corruptions}
    return [record for record in records if record.corruptions or measured(record) not in repeated]


def _order(row: ConfigurationRow) -> tuple[float]:
    return (descending(row.means.get("miou", row.means["clean"])),)


def _board(found: BoardRecords) -> AccuracyBoard:
    dataset, budget, masks = found.newest[0].dataset, found.budget, found.newest[0].segmented is not None
    return AccuracyBoard(
        name=slug(f"{dataset}-accuracy-{found.suffix}"),
        title=board_title(f"{dataset}, {'mean IoU' if masks else 'accuracy'}", budget, part=found.part),
        budget=budget,
        part=found.part,
        columns=_columns(dataset, budget, masks),
        rows=tuple(replace(row, rank=place if found.ranked else None) for place, row in enumerate(found.rows, 1)),
        notes=(*notes.accuracy_notes(found.newest), *found.left_out),
    )


def _columns(dataset: str, budget: str, masks: bool) -> tuple[ConfigurationColumn, ...]:
    measured = (
        columns.mean_column("Mean IoU (%)", "miou", "miou", essential=True),
        columns.INTERVAL,
        columns.mean_column("Pixel accuracy (%)", "clean", "pixel_accuracy"),
    )
    if not masks:
        measured = (
            columns.mean_column("Top-1 (%)", "clean", "top1", essential=True),
            columns.INTERVAL,
            columns.mean_column("Top-5 (%)", "top5", "top5"),
        )
    return (
        columns.RANK,
        columns.METHOD,
        columns.SYNTHETIC,
        columns.constants(dataset=dataset, budget=budget),
        *measured,
        columns.mean_column("Corrupted (%)", "corrupted", "corrupted", optional=True),
        columns.mean_column("Best epoch (%)*", "best", "best_epoch", optional=True),
        *(columns.mean_column(f"{name.capitalize()} (%)", name, name, optional=True) for name in SHOTS),
        columns.interval_data("miou" if masks else "top1"),
        ConfigurationColumn(data={"best_epochs": lambda row: " ".join(map(str, row.best_epochs))}),
        columns.ARCHITECTURE,
        ConfigurationColumn(
            header="Teacher",
            cell=lambda row: row.teacher or NONE,
            data={"teacher": lambda row: row.teacher or ""},
            only_if=lambda row: row.teacher is not None,
        ),
        columns.WEIGHTS,
        columns.WEIGHTS_DATA,
        columns.IMAGES,
        columns.SEEDS,
        columns.SOURCE,
    )
