"""Writes the results page: prepares its values and fills in ``index.html.j2``.

Boards and lists are HTML and can be read without a script. Runs are JSON, which ``page.js`` turns into views.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dkl.files import write_text
from dkl.manifests import Manifest
from dkl.records import BUDGETS, Record
from dkl.reporting.boards.board import Board
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.boards.paper import PaperBoard, published_board
from dkl.reporting.formats.html import render
from dkl.reporting.formats.text_table import TextTable
from dkl.reporting.grouping import created_at, group
from dkl.reporting.site.runs import runs_data, runs_table

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}

KINDS = {
    "radii": "Accuracy by radius of the attack",
    "classes": "Accuracy per class",
    "images": "Images, and their adversarial versions",
    "iou": "Intersection over union per class",
    "masks": "Test images, their true masks, and the masks of teacher and student",
    "ranking": "Rows of a board: rings are seeds, diamonds their means, bars 95 % intervals",
}
"""Captions of figures of runs, by the first word of their file names. ``curves`` are drawn by the script instead."""


@dataclass(frozen=True)
class Article:
    """A table with an anchor: its id, budget (empty if it has none), and per row the address of its run, or None."""

    name: str
    budget: str
    table: TextTable
    links: list[str | None]


def write_site(
    results: Path,
    records: Sequence[Record],
    boards: Sequence[Board[Any]],
    figures: Sequence[Path],
    problems: Sequence[str],
    manifests: Sequence[Manifest],
) -> Path:
    """Write ``<results>/index.html`` and return its path.

    Tables among ``manifests`` without a board among ``boards`` show the published values only. ``figures`` are
    ``.png`` and ``.svg`` files; of two with the same name the smaller one is embedded. ``problems`` are listed at the
    top, together with broken curves next to the records.
    """
    data, broken = runs_data(records, results)
    ids = {record.id for record in records}
    by_budget = group(records, lambda record: record.budget)
    paper_boards = [board for board in boards if isinstance(board, PaperBoard)]
    page = render(
        "site/index.html.j2",
        budgets=[
            {"name": name, "meaning": BUDGET_NOTES[name], "count": len(by_budget.get(name, []))} for name in BUDGETS
        ],
        # The page may be published, so it must not show local paths.
        problems=[problem.replace(f"{results}/", "") for problem in (*problems, *broken)],
        leaderboards=[_article(board, ids) for board in boards if not isinstance(board, PaperBoard)],
        tables=list(_paper_tables(manifests, paper_boards, ids)),
        figures=list(_figures(figures, manifests)),
        runs=Article("", "", *_linked(runs_table(sorted(records, key=created_at, reverse=True)), ids)),
        data=data,
    )
    path = results / "index.html"
    write_text(path, page)
    return path


def _article(board: Board[Any], ids: set[str]) -> Article:
    return Article(board.name, board.budget or "", *_linked(board.table(), ids))


def _linked(table: TextTable, ids: set[str]) -> tuple[TextTable, list[str | None]]:
    """Return the table and the address of each row's run: that of its first record among ``ids``."""
    records = (next((record for record in row if record in ids), None) for row in table.records)
    return table, [None if record is None else f"#run/{quote(record, safe='')}" for record in records]


def _paper_tables(
    manifests: Sequence[Manifest], boards: Sequence[PaperBoard], ids: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield the paper's tables in order, each with its boards or, if it has none, with its published values.

    Other experiments follow if they have boards.
    """
    own = group(boards, lambda board: board.manifest.name)
    tables = sorted((found for found in manifests if found.kind == "table"), key=lambda table: table.number or 0)
    others = [found for found in manifests if found.kind is None and found.name in own]
    for manifest in (*tables, *others):
        articles = [_article(board, ids) for board in own.get(manifest.name, [])]
        published = None if articles else _article(published_board(manifest), ids)
        yield {"name": manifest.name, "title": manifest.title, "boards": articles, "published": published}


def _figures(paths: Sequence[Path], manifests: Sequence[Manifest]) -> Iterator[dict[str, str]]:
    for stem, same in group(paths, lambda path: path.stem).items():
        if not stem.startswith("curves-"):
            # PNG is smaller for images, SVG for lines.
            smallest = min(same, key=lambda path: path.stat().st_size)
            content = base64.b64encode(smallest.read_bytes()).decode()
            source = f"data:{MEDIA_TYPES[smallest.suffix]};base64,{content}"
            yield {"name": stem, "source": source, "caption": _caption(stem, manifests)}


def _caption(stem: str, manifests: Sequence[Manifest]) -> str:
    """Say what the figure ``stem`` shows, and at which budget. A figure of the paper without one has budget paper."""
    kind, _, rest = stem.partition("-")
    of_paper = re.match(r"(?:figure|table)-\d+", stem)
    manifest = next((found for found in manifests if of_paper and found.name == of_paper[0]), None)
    if manifest is None:
        return f"{KINDS.get(kind, kind)}: {rest}."
    ours = next((budget for budget in BUDGETS if stem.endswith(f"-{budget}")), None)
    if ours is not None:
        source = f"Budget {ours}: {BUDGET_NOTES[ours]}."
    elif manifest.figure.get("draw") == "features":
        source = f"Budget paper: {BUDGET_NOTES['paper']}."
    else:
        source = "Published values, and our runs of budget paper if there are any."
    return f"{manifest.title}. {manifest.caption} {source}"
