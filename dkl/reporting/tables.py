"""All tables from a folder of records: read, fold, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dkl.errors import UserError
from dkl.files import write_text
from dkl.records import load_all
from dkl.reporting.accuracy import accuracy_boards
from dkl.reporting.boards import Board
from dkl.reporting.formats import to_csv, to_html, to_latex, to_markdown
from dkl.reporting.grouping import place
from dkl.reporting.leaderboard import leaderboards
from dkl.reporting.robustbench import write_model_info

FORMATS: dict[str, Callable[[Board], str]] = {
    "md": lambda board: to_markdown(board.table()),
    "csv": lambda board: to_csv(board.data()),
    "tex": lambda board: to_latex(board.table(), board.name),
    "html": lambda board: to_html(board.table()),
}


@dataclass(frozen=True, kw_only=True)
class TablesReport:
    """Files written, all boards as Markdown, what went wrong, and which records RobustBench's format leaves out."""

    written: list[Path]
    markdown: str
    problems: list[str]
    skipped: list[str]


def write_tables(
    records_folder: Path, tables_folder: Path, model_info_folder: Path, include_smoke: bool = False
) -> TablesReport:
    """Fold all records to ``<data set>-<norm>-eps<eps>-<budget>.{md,csv,tex,html}`` and RobustBench's model_info.

    Those of accuracy alone go to ``<data set>-accuracy-<budget>`` instead, in the same formats.
    A broken record is named in ``problems`` and not counted. Raises UserError where there is no record at all.
    """
    records, problems = load_all(records_folder)
    if not records:
        broken = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{records_folder} holds no usable records: dkl train, then dkl evaluate, first{broken}")
    boards: list[Board] = [*leaderboards(records, include_smoke), *accuracy_boards(records, include_smoke)]
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
    markdown = "\n".join(FORMATS["md"](board) for board in boards)
    return TablesReport(written=[*written, *models], markdown=markdown, problems=problems, skipped=skipped)
