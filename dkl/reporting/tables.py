"""All tables from a folder of records: read, fold, write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dkl.errors import UserError
from dkl.files import write_text
from dkl.manifests import load, names
from dkl.records import load_all, load_flags
from dkl.reporting.boards.accuracy import accuracy_boards
from dkl.reporting.boards.base import Board
from dkl.reporting.boards.leaderboard import leaderboards
from dkl.reporting.boards.paper import paper_boards
from dkl.reporting.boards.paper_board import PaperBoard
from dkl.reporting.boards.published import published
from dkl.reporting.formats.table import to_csv, to_html, to_latex, to_markdown
from dkl.reporting.grouping import place
from dkl.reporting.robustbench import write_model_info

FORMATS: dict[str, Callable[[Board], str]] = {
    "md": lambda board: to_markdown(board.table()),
    "csv": lambda board: to_csv(board.data()),
    "tex": lambda board: to_latex(board.table(), board.name),
    "html": lambda board: to_html(board.table()),
}


@dataclass(frozen=True, kw_only=True)
class TablesReport:
    """Files written, the boards in them, what went wrong, and which records RobustBench's format leaves out."""

    written: list[Path]
    boards: list[Board]
    problems: list[str]
    skipped: list[str]

    @property
    def markdown(self) -> str:
        """All boards as Markdown."""
        return _markdown(self.boards)

    def markdown_of(self, manifest: str, budget: str | None = None) -> str:
        """The boards of the manifest of this name, at ``budget`` or at each; where it has none, all boards."""
        own = [board for board in self.boards if isinstance(board, PaperBoard) and board.manifest.name == manifest]
        return _markdown([board for board in own if budget in (None, board.budget)] or self.boards)


def _markdown(boards: Sequence[Board]) -> str:
    return "\n".join(map(FORMATS["md"], boards))


def write_tables(
    records_folder: Path, tables_folder: Path, model_info_folder: Path, include_smoke: bool = False
) -> TablesReport:
    """Fold all records to boards of ``{md,csv,tex,html}``, and to RobustBench's model_info.

    Leaderboards are ``<data set>-<norm>-eps<eps>-<budget>``, those of accuracy alone ``<data set>-accuracy-<budget>``,
    and the paper's tables ``<manifest>-<budget>``, where any record is of their rows. A broken record is named in
    ``problems`` and not counted. Raises UserError where there is no record at all.
    """
    records, problems = load_all(records_folder)
    if not records:
        broken = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{records_folder} holds no usable records: dkl train, then dkl evaluate, first{broken}")
    manifests = [load(name) for name in names()]
    boards: list[Board] = [
        *leaderboards(records, include_smoke, published(manifests)),
        *accuracy_boards(records, include_smoke),
        *paper_boards(manifests, records, lambda r: load_flags(records_folder / f"{r.id}.json"), include_smoke),
    ]
    told = {place(record) for record in records if include_smoke or record.budget != "smoke"}
    if untold := [record.id for record in records if place(record) not in told]:
        problems.append(f"of budget smoke, which is no result, and on no board: {', '.join(untold)}")
    written: list[Path] = []
    for board in boards:
        for ending, text in FORMATS.items():
            path = tables_folder / f"{board.name}.{ending}"
            write_text(path, text(board))
            written.append(path)
    models, skipped = write_model_info(records, model_info_folder)
    return TablesReport(written=[*written, *models], boards=boards, problems=problems, skipped=skipped)
