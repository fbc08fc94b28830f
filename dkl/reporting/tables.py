"""Builds all tables from a folder of records and writes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from dkl.errors import UserError, choose_from
from dkl.manifests import Manifest, load_all
from dkl.published import published_entries
from dkl.records import Record, load_flags
from dkl.reporting.boards import Board
from dkl.reporting.boards.claims import claim_boards
from dkl.reporting.boards.entries import EntryFilter, entry_boards, load_entries, published_rows
from dkl.reporting.boards.leaderboards import is_complete, leaderboards
from dkl.reporting.boards.paper import PaperBoard, paper_boards, published_board
from dkl.reporting.boards.paper_rows import foreign_records
from dkl.reporting.formats import to_csv, to_html, to_latex, to_markdown, to_terminal
from dkl.reporting.grouping import board_key, is_reference, load_with_reference, record_file
from dkl.reporting.robustbench import write_model_info
from dkl.storage.files import write_text

AnyBoard = Board[Any]

FORMATS: dict[str, Callable[[AnyBoard], str]] = {
    "md": lambda board: to_markdown(board.table()),
    "csv": lambda board: to_csv(board.data()),
    "tex": lambda board: to_latex(board.table(), board.name),
    "html": lambda board: to_html(board.table()),
}
"""The function that writes a board, by file extension."""


@dataclass(frozen=True, kw_only=True)
class TablesReport:
    """Files written, their boards, problems to report, and the records that RobustBench's format leaves out.

    ``records`` and ``manifests`` are what the boards are made of; ids of reference records start with ``reference/``.
    """

    written: list[Path]
    boards: list[AnyBoard]
    problems: list[str]
    skipped: list[str]
    records: list[Record]
    manifests: list[Manifest]

    @property
    def markdown(self) -> str:
        """All boards as Markdown."""
        return "\n".join(map(FORMATS["md"], self.boards))

    def text_of(self, manifest: str, budget: str | None = None) -> str:
        """Return the boards of one manifest for a terminal, at ``budget`` or at all.

        If it has none: the boards with AutoAttack or without any attack, or every board if there is no such board.
        """
        own = [board for board in self.boards if isinstance(board, PaperBoard) and board.manifest.name == manifest]
        complete = [board for board in self.boards if any(map(is_complete, board.rows))]
        boards = [board for board in own if budget in (None, board.budget)] or complete or self.boards
        return "\n".join(to_terminal(board.table()) for board in boards)


def write_tables(
    results: Path,
    *,
    include_smoke: bool = False,
    folders: Sequence[Path] = (),
    shown: EntryFilter | None = None,
) -> TablesReport:
    """Write every board of ``results`` as ``tables/<name>.{md,csv,tex,html}``, and RobustBench's ``model_info`` files.

    Leaderboards are named ``<dataset>-<norm>-eps<eps>-<budget>``, accuracy boards ``<dataset>-accuracy-<budget>``, and
    the paper's tables ``<manifest>-<budget>``, and ``<manifest>-published-weights`` without trained rows; the latter
    need a record of one of their rows. ``claims`` says what the runs of small experiments show of the paper's claims.
    Boards of entries, named ``entries-<dataset>-<norm>-eps<eps>``, also show the records of other ``folders``, as
    ``shown`` filters. Reference records are shown beside the others, and are no entries of RobustBench. Broken records
    and manifests are named in ``problems`` and not counted. Raises UserError if there is no usable record, or no entry
    or published evaluation of the dataset that is ``shown``.
    """
    records, problems = load_with_reference(results)
    entries, left_out = load_entries(results, folders)
    problems += left_out
    if not records and not entries:
        broken = "".join(f"; {problem}" for problem in problems)
        raise UserError(f"{results / 'records'} has no usable record: run dkl train, then dkl evaluate, first{broken}")
    datasets = {record.dataset for record in [*records, *(entry.record for entry in entries)]}
    datasets |= {entry.dataset for entry in published_entries()}
    if shown and shown.dataset and shown.dataset not in datasets:
        raise UserError(f"dataset={shown.dataset} has no record: {choose_from(shown.dataset, sorted(datasets))}")
    manifests, wrong = load_all(results)
    problems += wrong
    joined = entry_boards(entries, shown)
    if shown not in (None, EntryFilter()) and not joined:
        problems.append("no entry is as asked, so there is no board of entries: leave out some filters")
    foreign = foreign_records(records)
    of_weights = (published_board(manifest, foreign) for manifest in manifests if foreign)
    boards: list[AnyBoard] = [
        *leaderboards(records, include_smoke, published_rows(manifests)),
        *joined,
        *paper_boards(manifests, records, lambda r: load_flags(record_file(results, r)), include_smoke, problems),
        # Without ours: of published weights that were evaluated.
        *(board for board in of_weights if any(row.weights.records for row in board.rows)),
    ]
    # A smoke record whose board has other records is counted in that board's notes instead.
    visible = {board_key(record) for record in records if include_smoke or record.budget != "smoke"}
    if hidden := [record.id for record in records if board_key(record) not in visible]:
        problems.append(f"budget smoke is no result, so these are on no board: {', '.join(hidden)}")
    boards = _distinct([*claim_boards([board for board in boards if isinstance(board, PaperBoard)]), *boards])
    formats = list(product(boards, FORMATS.items()))
    written = [results / "tables" / f"{board.name}.{extension}" for board, (extension, _) in formats]
    for path, (board, (_, text)) in zip(written, formats, strict=True):
        write_text(path, text(board))
    models, skipped = write_model_info([r for r in records if not is_reference(r)], results / "model_info")
    return TablesReport(
        written=[*written, *models],
        boards=boards,
        problems=problems,
        skipped=skipped,
        records=records,
        manifests=manifests,
    )


def _distinct(boards: Sequence[AnyBoard]) -> list[AnyBoard]:
    """Number boards whose file names another board has, also on disks that ignore case: none overwrites another."""
    named: dict[str, AnyBoard] = {}
    for board in boards:
        name, count = board.name, 1
        while name.lower() in named:
            count += 1
            name = f"{board.name}-{count}"
        named[name.lower()] = board if count == 1 else replace(board, name=name, title=f"{board.title} ({count})")
    return list(named.values())
