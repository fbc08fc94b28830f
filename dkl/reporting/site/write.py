"""Writes the page: boards and lists as HTML that reads without a script, runs as values for ``page.js`` to lay out."""

import base64
import html
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from dkl.files import write_text
from dkl.manifests import Manifest
from dkl.records import BUDGETS, Record
from dkl.reporting.boards.base import NONE, Board, marked
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.boards.paper import blank
from dkl.reporting.boards.paper_board import PaperBoard
from dkl.reporting.formats.page import page
from dkl.reporting.formats.table import TextTable, html_table
from dkl.reporting.grouping import age, group, weights
from dkl.reporting.names import attacks_label, display_architecture
from dkl.reporting.site.content import content, to_json
from dkl.reporting.statistics.estimates import percent

Link = Callable[[str, Sequence[str]], str]

TYPES = {".png": "image/png", ".svg": "image/svg+xml"}

KINDS = {
    "radii": "Accuracy against the radius of the attack",
    "classes": "Accuracy of every class",
    "images": "Images, and what the attack makes of them",
}
"""Figures of runs by the first word of their names. ``curves`` are drawn in the view of each run instead."""


def write_site(
    results: Path,
    records: Sequence[Record],
    boards: Sequence[Board],
    figures: Sequence[Path],
    problems: Sequence[str],
    manifests: Sequence[Manifest],
) -> Path:
    """Write ``<results>/index.html`` and return its path.

    Of ``manifests``, tables without a board among ``boards`` show the paper's figures alone. ``figures`` are
    ``.png`` and ``.svg``; of two with the same name the smaller file is embedded. ``problems`` are named at the top,
    and so are broken curves beside the records in ``<results>/records``.
    """
    values, broken = content(records, results / "records")
    link = partial(_link, {record.id for record in records})
    parts = {
        "budgets": "".join(_budgets(records)),
        "choices": "".join(f"<option>{budget}</option>" for budget in BUDGETS),
        "problems": _problems([problem.replace(f"{results}/", "") for problem in (*problems, *broken)]),
        "leaderboards": "".join(_article(board, link) for board in boards if not isinstance(board, PaperBoard)),
        "tables": _tables(manifests, [board for board in boards if isinstance(board, PaperBoard)], link),
        "figures": "".join(_figures(figures, manifests)) or "<p>There are none yet.</p>",
        "runs": html_table(_runs(sorted(records, key=age, reverse=True)), link),
        "data": to_json(values),
    }
    body, script, style = (
        files(__package__).joinpath(name).read_text("utf-8") for name in ("body.html", "page.js", "page.css")
    )
    path = results / "index.html"
    write_text(path, page(title="dkl: results", body=Template(body).substitute(parts), script=script, style=style))
    return path


def _link(known: Collection[str], method: str, records: Sequence[str]) -> str:
    """The cell of a method, a link to the first of its records that is among the ``known``."""
    name = html.escape(method)
    first = next((record for record in records if record in known), None)
    return name if first is None else f'<a href="#run/{quote(first, safe="")}">{name}</a>'


def _budgets(records: Sequence[Record]) -> Iterator[str]:
    """What each budget is worth, and how many evaluations are of it."""
    counts = group(records, lambda record: record.budget)
    for budget in BUDGETS:
        count = len(counts.get(budget, []))
        yield f"<dt>{budget}</dt><dd>{BUDGET_NOTES[budget]} ({count} evaluation{'' if count == 1 else 's'})</dd>\n"


def _problems(problems: Sequence[str]) -> str:
    """What is left out of the page, in a list; nothing where nothing is."""
    items = "".join(f"<li>{html.escape(problem)}</li>\n" for problem in problems)
    return items and f'<section class="problems">\n<h3>Left out</h3>\n<ul>\n{items}</ul>\n</section>\n'


def _article(board: Board, link: Link) -> str:
    table, name = board.table(), html.escape(board.name)
    return (
        f'<article id="{name}" data-budget="{board.budget or ""}">\n'
        f'<h3><a href="#{name}">{html.escape(table.title)}</a></h3>\n{html_table(table, link)}\n</article>\n'
    )


def _tables(manifests: Sequence[Manifest], boards: Sequence[PaperBoard], link: Link) -> str:
    """A list of the paper's tables, and then each at every budget there is, or the paper's figures alone."""
    own = group(boards, lambda board: board.manifest.name)
    items, articles = [], []
    tables = [manifest for manifest in manifests if manifest.kind == "table"]
    for manifest in sorted(tables, key=lambda found: found.number or 0):
        here = own.get(manifest.name, [])
        budgets = ", ".join(str(board.budget) for board in here)
        which = f"runs of budget {budgets}" if here else "figures of the paper alone"
        items.append(f'<li><a href="#{manifest.name}">{html.escape(manifest.title)}</a> <small>{which}</small></li>\n')
        shown = "".join(_article(board, link) for board in here or [blank(manifest)])
        articles.append(f'<div id="{manifest.name}">\n{shown}</div>\n' if here else shown)
    return f'<ul class="index">\n{"".join(items)}</ul>\n{"".join(articles)}'


def _figures(paths: Sequence[Path], manifests: Sequence[Manifest]) -> Iterator[str]:
    for stem, same in group(paths, lambda path: path.stem).items():
        if stem.startswith("curves-"):
            continue
        smallest = min(same, key=lambda path: path.stat().st_size)
        image = f"data:{TYPES[smallest.suffix]};base64,{base64.b64encode(smallest.read_bytes()).decode()}"
        name, caption = html.escape(stem), html.escape(_caption(stem, manifests))
        inside = f'<img src="{image}" alt="{caption}">\n<figcaption>{caption}</figcaption>'
        yield f'<figure id="{name}">\n{inside}\n</figure>\n'


def _caption(stem: str, manifests: Sequence[Manifest]) -> str:
    """What the figure ``stem`` shows, and of which budget: one of the paper's that names none is of budget paper."""
    kind, _, rest = stem.partition("-")
    of_paper = re.match(r"(?:figure|table)-\d+", stem)
    manifest = next((found for found in manifests if of_paper and found.name == of_paper[0]), None)
    if manifest is None:
        return f"{KINDS.get(kind, kind)}: {rest}."
    ours = next((budget for budget in BUDGETS if stem.endswith(f"-{budget}")), None)
    if ours is not None:
        worth = f"Budget {ours}: {BUDGET_NOTES[ours]}."
    elif manifest.figure.get("draw") == "features":
        worth = f"Budget paper: {BUDGET_NOTES['paper']}."
    else:
        worth = "Published figures, and runs here of budget paper where there are any."
    return f"{manifest.title}. {manifest.caption} {worth}"


def _percent(record: Record, fraction: float | None) -> str:
    """An accuracy in a list of runs, where one of budget smoke is no result."""
    return NONE if fraction is None or record.budget == "smoke" else percent(fraction)


def _runs(records: Sequence[Record]) -> TextTable:
    """One row an evaluation."""
    columns: dict[str, Callable[[Record], str]] = {
        "Method": lambda r: marked(r.method, r.additional_data, bool(r.synthetic)),
        "Data set": lambda r: r.dataset,
        "Architecture": lambda r: display_architecture(r.architecture),
        "Budget": lambda r: r.budget,
        "Seed": lambda r: NONE if r.seed is None else str(r.seed),
        "Clean (%)": lambda r: _percent(r, r.clean),
        "Robust (%)": lambda r: _percent(r, r.robust),
        "Radius": lambda r: NONE if r.accuracy_only else f"{r.norm} {r.eps_text}",
        "n": lambda r: str(r.n),
        "Weights": weights,
        "Evaluated": lambda r: r.created[:10],
        "Attacks": lambda r: NONE if r.accuracy_only else attacks_label(r),
    }
    return TextTable(
        title="Runs",
        header=tuple(columns),
        rows=tuple(tuple(cell(record) for cell in columns.values()) for record in records),
        alignments="llllrrrlrlll",
        records=tuple((record.id,) for record in records),
    )
