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

from dkl.manifests import Manifest
from dkl.records import BUDGETS, Record
from dkl.reporting.boards.board import Board
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.boards.paper import PaperBoard, published_board
from dkl.reporting.formats.html import render
from dkl.reporting.formats.text_table import TextTable
from dkl.reporting.grouping import created_at, group
from dkl.reporting.reference import is_reference
from dkl.reporting.site.runs import runs_data, runs_table
from dkl.reporting.site.scatter import scatter
from dkl.storage.files import write_text

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}

KINDS = {
    "forest": (
        "Claims",
        "Paired differences with their 95 % intervals; claimed is the right side of 0, or equality within the gray bar",
    ),
    "dynamics": ("Training dynamics", "Means over seeds by epoch, with bands from the lowest to the highest seed"),
    "tradeoff": ("Accuracy and robustness", "Means over seeds, with bars of one standard deviation"),
    "radii": ("Accuracy by radius of the attack", "Robust accuracy by radius"),
    "steps": ("Accuracy by steps of the attack", "Robust accuracy by the number of steps"),
    "features": ("Features and class margins", "Features by t-SNE (a, b) and class margins (c), as in Figure 3"),
    "images": ("Attacked images", "Images, their adversarial versions and the magnified differences"),
    "ranking": ("Rankings", "Rows of a board: rings are seeds, diamonds their means, bars 95 % intervals"),
    "masks": ("Segmentation", "Test images, their true masks, and the masks of teacher and student"),
    "iou": ("Intersection over union", "Intersection over union per class"),
    "classes": ("Accuracy per class", "Accuracy per class"),
}
"""Heading and caption of figures of runs, by the first word of their file names. The script draws ``curves``."""

PUBLISHED = "Figures of the paper, published values only"
"""The heading of figures without runs, which are folded."""

Figures = dict[str, list[dict[str, str]]]
"""By heading: per figure its name, source, caption, and kind (``plot``, ``wide plot`` or ``photo``)."""

ABSOLUTE = re.compile(r"(?<!\S)/\S*/")
"""The folders of an absolute path."""

OF_PAPER = re.compile(r"(?:figure|table)-\d+")
"""Prefix of the names of the paper's figures."""


@dataclass(frozen=True)
class Article:
    """A table with an anchor: its id, budget (empty if it has none), and per row the address of its run, or None.

    ``runs`` are one record per row, whose curves are drawn. ``ranked`` is whether a row has a rank.
    """

    name: str
    budget: str
    table: TextTable
    links: list[str | None]
    runs: list[str]
    ranked: bool = True


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
    entries = [board for board in boards if board.name.startswith("entries-")]
    claims = [board for board in boards if board.name.startswith("claims")]
    others = [board for board in boards if not isinstance(board, PaperBoard) and board not in (*entries, *claims)]
    articles = [_article(board, ids) for board in others]
    tables = list(_paper_tables(manifests, paper_boards, ids))
    measured = {board.manifest.name for board in paper_boards if board.budget == "paper"}
    drawn = _figures(figures, manifests, measured)
    page = render(
        "site/index.html.j2",
        budgets=[
            {"name": name, "meaning": BUDGET_NOTES[name], "count": len(by_budget[name])}
            for name in BUDGETS
            if name in by_budget
        ],
        # The page may be published, so it must not show local paths, also of other folders of records.
        problems=[ABSOLUTE.sub("", problem.replace(f"{results}/", "")) for problem in (*problems, *broken)],
        claims=[_article(board, ids) for board in claims],
        claims_drawn=drawn.pop(KINDS["forest"][0], []),
        leaderboards=[article for article in articles if article.ranked],
        unranked=[article for article in articles if not article.ranked],
        entries=[(_article(board, ids), scatter(board.rows)) for board in entries],
        tables=tables,
        figures=drawn,
        published=PUBLISHED,
        has_reference=any(map(is_reference, records)),
        runs=_linked("", "", runs_table(sorted(records, key=created_at, reverse=True)), ids),
        data=data,
    )
    path = results / "index.html"
    write_text(path, page)
    return path


def _article(board: Board[Any], ids: set[str]) -> Article:
    ranked = any(getattr(row, "rank", None) is not None for row in board.rows)
    return _linked(board.name, board.budget or "", board.table(), ids, ranked)


def _linked(name: str, budget: str, table: TextTable, ids: set[str], ranked: bool = True) -> Article:
    """Return the table, each of whose rows is linked to the run of its first record among ``ids``."""
    first = [next((record for record in row if record in ids), None) for row in table.records]
    links = [None if record is None else f"#run/{quote(record, safe='')}" for record in first]
    return Article(name, budget, table, links, [record for record in first if record is not None], ranked)


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


def _figures(paths: Sequence[Path], manifests: Sequence[Manifest], measured: set[str]) -> Figures:
    """Return the figures under headings, those of runs first; ``measured`` are the tables with runs of budget paper."""
    order = [*(heading for heading, _ in KINDS.values()), "Figures of the paper, and ours", PUBLISHED]
    found: Figures = {heading: [] for heading in order}
    for stem, same in group(paths, lambda path: path.stem).items():
        if stem.startswith("curves-"):
            continue
        # PNG is smaller for images, SVG for lines.
        smallest = min(same, key=lambda path: path.stat().st_size)
        content = base64.b64encode(smallest.read_bytes()).decode()
        source = f"data:{MEDIA_TYPES[smallest.suffix]};base64,{content}"
        heading, caption = _described(stem, manifests, measured)
        kind = "photo" if stem.startswith(("images-", "masks-")) else "plot"
        kind = "wide plot" if stem.startswith(("forest-", "dynamics-")) else kind
        found.setdefault(heading, []).append({"name": stem, "source": source, "caption": caption, "kind": kind})
    return {heading: figures for heading, figures in found.items() if figures}


def _described(stem: str, manifests: Sequence[Manifest], measured: set[str]) -> tuple[str, str]:
    """Return the heading of the figure ``stem``, and what it shows at which budget."""
    kind, _, rest = stem.partition("-")
    of_paper = OF_PAPER.match(stem)
    manifest = next((found for found in manifests if of_paper and found.name == of_paper[0]), None)
    if manifest is None:
        heading, caption = KINDS.get(kind, ("Other figures", kind))
        return heading, f"{caption} ({rest.replace('_', ' ')})."
    ours = next((budget for budget in BUDGETS if stem.endswith(f"-{budget}")), None)
    features = manifest.figure.get("draw") == "features"
    has_runs = bool(ours or features or measured & {manifest.name, manifest.figure.get("table")})
    if ours or features:
        source = f"Budget {ours or 'paper'}: {BUDGET_NOTES[ours or 'paper']}."
    else:
        source = "Published values and our runs of budget paper." if has_runs else "Published values only."
    return "Figures of the paper, and ours" if has_runs else PUBLISHED, f"{manifest.title}. {manifest.caption} {source}"
