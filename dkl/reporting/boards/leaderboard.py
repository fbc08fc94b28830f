"""Leaderboards: records of attacks, one board per threat model and budget, one row per configuration.

Budgets, attack suites, numbers of images and test sets are never averaged together, and budgets never ranked together.
Published rows are shown only on boards of budget ``paper``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dkl.records import Record
from dkl.reporting.boards import columns, notes
from dkl.reporting.boards.board import Board
from dkl.reporting.boards.cells import board_title, plain_flag
from dkl.reporting.boards.columns import ConfigurationColumn
from dkl.reporting.boards.configuration import BoardRecords, ConfigurationRow, descending, group_by_board
from dkl.reporting.grouping import ThreatModel, threat_model
from dkl.reporting.names import slug

Leaderboard = Board[ConfigurationRow]


def leaderboards(
    records: Sequence[Record],
    include_smoke: bool = False,
    published: Mapping[ThreatModel, Sequence[ConfigurationRow]] | None = None,
) -> list[Leaderboard]:
    """Build one board per dataset, norm, radius and budget; those of budget ``smoke`` only with ``include_smoke``.

    Records of a part of the test set have a second board, whose name ends in ``-part``.
    Boards of budget ``paper`` also have the ``published`` rows of their threat model.
    """
    attacked = [record for record in records if not record.accuracy_only]
    found = group_by_board(attacked, _order, include_smoke=include_smoke)
    return [_board(found, published or {}) for found in found]


def _order(row: ConfigurationRow) -> tuple[bool, float, float]:
    """AutoAttack first, then by robust and clean accuracy."""
    return not row.autoattack, descending(row.means["robust"]), descending(row.means["clean"])


def _board(found: BoardRecords, published: Mapping[ThreatModel, Sequence[ConfigurationRow]]) -> Leaderboard:
    record, budget = found.newest[0], found.budget
    # Published values come from full-size recipes, so only budget paper is comparable.
    beside = published.get(threat_model(record), ()) if budget == "paper" and not found.part else ()
    rows = sorted([*found.rows, *beside], key=_order)
    # The radius may be written in several ways: the shortest is easiest to read.
    eps = min((record.eps_text for record in found.newest), key=lambda text: (len(text), text))
    return Leaderboard(
        name=slug(f"{record.dataset}-{record.norm}-eps{eps}-{found.suffix}"),
        title=board_title(f"{record.dataset}, {record.norm}, eps = {eps}", budget, part=found.part),
        budget=budget,
        part=found.part,
        columns=_columns(record.dataset, record.norm, eps, budget),
        # AutoAttack rows come first, so that their places are their ranks.
        rows=tuple(
            replace(row, rank=place if row.autoattack and found.ranked else None) for place, row in enumerate(rows, 1)
        ),
        notes=(*notes.attack_notes(found.newest), *([notes.PUBLISHED] if beside else []), *found.left_out),
    )


def _columns(dataset: str, norm: str, eps: str, budget: str) -> tuple[ConfigurationColumn, ...]:
    return (
        columns.RANK,
        columns.METHOD,
        columns.constants(dataset=dataset, norm=norm, eps=eps, budget=budget),
        columns.mean_column("Clean (%)", "clean", "clean"),
        columns.mean_column("Robust (%)", "robust", "robust", essential=True),
        columns.INTERVAL,
        columns.interval_data("robust"),
        columns.ARCHITECTURE,
        columns.WEIGHTS,
        columns.IMAGES,
        columns.SEEDS,
        ConfigurationColumn(header="Attack", cell=lambda row: row.attacks, data={"attacks": lambda row: row.attacks}),
        ConfigurationColumn(data={"autoattack": lambda row: plain_flag(row.autoattack)}),
        # Machines read these columns last, people further to the left.
        columns.WEIGHTS_DATA,
        columns.SYNTHETIC,
        columns.SOURCE,
    )
