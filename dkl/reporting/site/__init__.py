"""Writes the results page: prepares its values and fills in ``index.html.j2``.

Boards and lists are HTML and can be read without a script. Runs are JSON, which ``page.js`` turns into views.
"""

import base64
import dataclasses
import html
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dkl.errors import UserError
from dkl.manifests import Manifest
from dkl.records import BUDGETS, Curves, Record, load_curves
from dkl.records.metrics import METRICS
from dkl.reporting import grouping
from dkl.reporting.boards import NONE, Board, interval_cell, method_cell
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.boards.paper import PaperBoard, papers_order, published_board
from dkl.reporting.figures.curves import ACCURACIES
from dkl.reporting.figures.style import inline, method_color, seed_text
from dkl.reporting.figures.tradeoff import entries as drawn_entries
from dkl.reporting.formats import TextTable, render
from dkl.reporting.statistics import accuracy_interval, percent
from dkl.storage.files import digest, write_text

KINDS = {
    "forest": (
        "Claims",
        "Paired differences with their 95 % intervals; claimed is the right side of 0, or equality within the gray bar",
    ),
    "dynamics": ("Training dynamics", "Means over seeds by epoch, with bands from the lowest to the highest seed"),
    "tradeoff": ("Accuracy and robustness", "Means over seeds, with bars of one standard deviation"),
    "frontier": ("Frontiers", "A line per loss along its weights, and bands of the 95 % intervals of each row"),
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

_SHOWN = (
    *("clean", "robust", "per_attack", "top5", "shots", "corruptions", "best", "best_epoch"),
    *("training", "warnings", "checksums"),
)
"""Record fields that are shown elsewhere. All others are listed as provenance."""

DASHES = {"-": "none", "--": "5 3", "-.": "9 3 2 3", ":": "1 4"}
"""The dashes in SVG of each line style of ``ACCURACIES``."""

Accuracy = dict[str, Any]
"""``name`` and ``percent``; if known, ``interval`` (two numbers, percent), its ``text``, and ``seconds``."""


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
    by_budget = grouping.group(records, lambda record: record.budget)
    paper_boards = [board for board in boards if isinstance(board, PaperBoard)]
    others = [board for board in boards if not isinstance(board, PaperBoard)]
    by_kind = grouping.group(others, lambda board: board.name.partition("-")[0])
    entries, claims = by_kind.pop("entries", []), by_kind.pop("claims", [])

    def order(board: Board[Any]) -> tuple[int, bool, int, str]:
        """Adversarial training first, as in the paper; in each topic the whole test set and the largest boards."""
        shown = [record for row in board.rows for record in row.records]
        return grouping.TOPICS.index(grouping.topic(shown)), board.part, -len(board.rows), board.name

    is_folded = grouping.group(
        sorted(chain(*by_kind.values()), key=order), lambda board: board.part or board.budget == "smoke"
    )
    drawn = _figures(figures, manifests, {board.manifest.name for board in paper_boards if board.budget == "paper"})
    newest = sorted(records, key=grouping.created_at, reverse=True)
    page = render(
        "site/index.html.j2",
        budgets=[(name, BUDGET_NOTES[name], len(by_budget[name])) for name in BUDGETS if name in by_budget],
        # The page may be published, so it must not show local paths, also of other folders of records.
        problems=[re.sub(r"(?<!\S)/\S*/", "", text.replace(f"{results}/", "")) for text in (*problems, *broken)],
        claims=[_article(board, ids) for board in claims],
        claims_drawn=drawn.pop(KINDS["forest"][0], []),
        verdicts=[grouping.group(board.rows, lambda row: row.group) for board in claims],
        leaderboards=[_article(board, ids) for board in is_folded.get(False, [])],
        unranked=[_article(board, ids) for board in is_folded.get(True, [])],
        entries=[(_article(board, ids), inline(partial(drawn_entries, board.rows), board.name)) for board in entries],
        tables=list(_paper_tables(manifests, paper_boards, ids)),
        figures=drawn,
        published=PUBLISHED,
        has_reference=any(map(grouping.is_reference, records)),
        runs=_linked(runs_table(newest), ids),
        # On a phone, the rows of runs say more than a method.
        about=[
            ", ".join(
                filter(None, (seed_text(r.seed), r.dataset, "" if r.accuracy_only else grouping.attacks_label(r)))
            )
            for r in newest
        ],
        data=data,
    )
    path = results / "index.html"
    write_text(path, page)
    return path


def _article(board: Board[Any], ids: set[str]) -> Article:
    return _linked(board.table(), ids, board.name, board.budget or "")


def _linked(table: TextTable, ids: set[str], name: str = "", budget: str = "") -> Article:
    """Return the table, each of whose rows is linked to the run of its first record among ``ids``."""
    links = (next((f"#run/{quote(r, safe='')}" for r in row if r in ids), None) for row in table.records)
    return Article(name, budget, table, list(links))


def _paper_tables(
    manifests: Sequence[Manifest], boards: Sequence[PaperBoard], ids: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield the paper's tables in order, each with its boards or, if it has none, with its published values.

    Other experiments follow if they have boards.
    """
    own = grouping.group(sorted(boards, key=papers_order), lambda board: board.manifest.name)
    tables = sorted((table for table in manifests if table.kind == "table"), key=lambda table: table.number or 0)
    others = [same[0].manifest for same in own.values() if same[0].manifest.kind is None]
    for manifest in (*tables, *others):
        trained = [board for board in own.get(manifest.name, []) if board.budget]
        published = next((board for board in own.get(manifest.name, []) if not board.budget), published_board(manifest))
        yield {
            **{"name": manifest.name, "title": manifest.title, "of_paper": manifest.kind is not None},
            "boards": [_article(board, ids) for board in trained],
            "published": None if trained else _article(published, ids),
        }


def _figures(
    paths: Sequence[Path], manifests: Sequence[Manifest], measured: set[str]
) -> dict[str, list[dict[str, str]]]:
    """Return per heading, those of runs first, each figure's name, source, caption and kind.

    ``measured`` are the tables with runs of budget paper. A kind is ``plot``, ``wide plot`` or ``photo``.
    """
    order = [*(heading for heading, _ in KINDS.values()), "Figures of the paper, and ours", PUBLISHED]
    by_heading: dict[str, list[dict[str, str]]] = {heading: [] for heading in order}
    for stem, same in grouping.group(paths, lambda path: path.stem).items():
        if stem.startswith("curves-"):
            continue
        # PNG is smaller for images, SVG for lines.
        smallest = min(same, key=lambda path: path.stat().st_size)
        content = base64.b64encode(smallest.read_bytes()).decode()
        source = f"data:image/{'png' if smallest.suffix == '.png' else 'svg+xml'};base64,{content}"
        # The title of the drawing, which the SVG has in its metadata.
        svgs = [path.read_text(encoding="utf-8") for path in same if path.suffix == ".svg"]
        titles = re.findall("<dc:title>(.*?)</dc:title>", "".join(svgs))
        heading, caption = _described(stem, html.unescape("".join(titles[:1])), manifests, measured)
        kind = "photo" if stem.startswith(("images-", "masks-")) else "plot"
        kind = "wide plot" if stem.startswith(("forest-", "dynamics-", "frontier-")) else kind
        by_heading.setdefault(heading, []).append({"name": stem, "source": source, "caption": caption, "kind": kind})
    return {heading: figures for heading, figures in by_heading.items() if figures}


def _described(stem: str, title: str, manifests: Sequence[Manifest], measured: set[str]) -> tuple[str, str]:
    """Return the heading of the figure ``stem``, and what it shows at which budget."""
    kind = stem.partition("-")[0]
    of_paper = re.match(r"(?:figure|table)-\d+", stem)
    manifest = next((found for found in manifests if of_paper and found.name == of_paper[0]), None)
    if manifest is None:
        heading, caption = KINDS.get(kind, ("Other figures", kind))
        return heading, f"{f'{title}. ' if title else ''}{caption}."
    ours = next((budget for budget in BUDGETS if stem.endswith(f"-{budget}")), None)
    features = manifest.figure.get("draw") == "features"
    has_runs = bool(ours or features or measured & {manifest.name, manifest.figure.get("table")})
    if ours or features:
        source = f"Budget {ours or 'paper'}: {BUDGET_NOTES[ours or 'paper']}."
    else:
        source = "Published values and our runs of budget paper." if has_runs else "Published values only."
    return "Figures of the paper, and ours" if has_runs else PUBLISHED, f"{manifest.title}. {manifest.caption} {source}"


def runs_table(records: Sequence[Record]) -> TextTable:
    """Return a table with one row per evaluation. Only attacked records fill the columns of attacks."""
    columns: dict[str, Callable[[Record], str]] = {
        "Method": lambda r: method_cell(r.method, additional_data=r.additional_data, synthetic=bool(r.synthetic)),
        "Robust (%)": lambda r: _percent(r, r.robust),
        "Clean (%)": lambda r: _percent(r, r.clean),
        "Seed": lambda r: NONE if r.seed is None else str(r.seed),
        "Radius": lambda r: NONE if r.accuracy_only else f"{r.norm} {r.eps_text}",
        "Attacks": lambda r: NONE if r.accuracy_only else grouping.attacks_label(r),
        "Dataset": lambda r: r.dataset,
        "Architecture": lambda r: r.architecture,
        "Budget": lambda r: r.budget,
        "n": lambda r: str(r.n),
        "Weights": grouping.weights_kind,
        "Evaluated": lambda r: r.created[:10],
        "Source": lambda r: grouping.REFERENCE if grouping.is_reference(r) else "ours",
    }
    unfilled = {"Robust (%)", "Radius", "Attacks"} if all(record.accuracy_only for record in records) else set()
    unfilled |= set() if any(map(grouping.is_reference, records)) else {"Source"}
    shown = {name: cell for name, cell in columns.items() if name not in unfilled}
    return TextTable(
        title="Runs",
        header=tuple(shown),
        rows=tuple(tuple(cell(record) for cell in shown.values()) for record in records),
        alignments="".join("r" if name in ("Robust (%)", "Clean (%)", "Seed", "n") else "l" for name in shown),
        records=tuple((record.id,) for record in records),
        essential=frozenset(("Method", "Robust (%)", "Clean (%)")),
    )


def _percent(record: Record, fraction: float | None) -> str:
    """Return an accuracy in percent. Budget smoke has none: it is no result."""
    return NONE if fraction is None or record.budget == "smoke" else percent(fraction)


def runs_data(records: Sequence[Record], results: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the records of ``results`` and their curves as JSON values; and one message per broken file.

    Records of one run share its configuration and curves.
    """
    runs: dict[str, Any] = {}
    shown: list[dict[str, Any]] = []
    problems: list[str] = []
    for record in records:
        curves: Curves = []
        try:
            curves = load_curves(grouping.record_file(results, record))
        except UserError as error:
            problems.append(str(error))
        # Five significant digits keep the page small. What an epoch did not measure, or is not finite, is None.
        columns = {
            name: [float(f"{x:.5g}") if math.isfinite(x := row.get(name, math.nan)) else None for row in curves]
            for name in dict.fromkeys(key for row in curves for key in row)
        }
        # The task repeats the loss and the attack.
        task, training = record.training.get("task"), dict(record.training)
        if isinstance(task, Mapping):
            repeated = [key for key in ("loss", "attack") if key in task and task[key] == training.get(key)]
            training["task"] = {key: value for key, value in task.items() if key not in repeated}
        run = {"training": training, "curves": columns}
        # Configurations are the largest part of the page: store each once.
        key = digest(run)
        runs[key] = run
        shown.append({**_record(record), "run": key})
    metrics = {
        key: {"name": name, "color": color, "dash": DASHES[line]} for key, (name, color, line) in ACCURACIES.items()
    }
    return {"records": shown, "runs": runs, "metrics": metrics}, problems


def _record(record: Record) -> dict[str, Any]:
    attacked = "" if record.accuracy_only else f"{grouping.attacks_label(record)} at {record.norm} {record.eps_text}, "
    seed = "trained elsewhere" if record.seed is None else f"seed {record.seed}"
    facts = {
        "Dataset": record.dataset,
        "Architecture": record.architecture,
        "Teacher": grouping.teacher_title(record),
        "Seed": "unknown, trained elsewhere" if record.seed is None else str(record.seed),
        "Weights": record.weights,
        "Attacks": None if record.accuracy_only else grouping.attacks_label(record),
        "Radius": None if record.accuracy_only else f"{record.norm}, {record.eps_text}",
        "Test images": f"{record.n}{', a part of the test set' if record.partial else ''}",
        "Synthetic images": record.synthetic,
        "Additional data": "yes" if record.additional_data else None,
        "Source": "reference: it ships with the project" if grouping.is_reference(record) else None,
    }
    return {
        "id": record.id,
        "method": record.method,
        "color": method_color(record.method),
        "short": record.method + ("" if record.seed is None else f", seed {record.seed}"),
        "budget": f"Budget {record.budget}: {BUDGET_NOTES[record.budget]}.",
        "result": record.budget != "smoke",
        "row": f"{record.budget} {record.row}",
        "label": f"{seed}: {attacked}weights {record.weights}, n = {record.n}",
        "facts": {name: value for name, value in facts.items() if value},
        "accuracies": list(_accuracies(record)),
        "warnings": record.warnings,
        "provenance": {key: value for key, value in dataclasses.asdict(record).items() if key not in _SHOWN},
    }


def _accuracies(record: Record) -> Iterator[Accuracy]:
    """Yield every accuracy, with Wilson's 95 % interval if it is a fraction of the n images."""
    for name, metric in METRICS.items():
        value = metric.measured(record)
        if value is None or metric.unit != "%":
            continue
        if name == "robust":
            for attack, result in ((attack, record.per_attack[attack]) for attack in record.attacks):
                accuracy = _image_fraction(f"Robust after {attack}", result.robust, record.n)
                yield {**accuracy, "seconds": round(result.seconds, 1)}
        words = metric.words.format(record)
        words = words[0].upper() + words[1:]
        if name == "robust" and record.bound:
            words += f" (AutoAttack {record.bound.text})"
        if metric.flags:
            yield _image_fraction(words, value, record.n, record.slack if name == "robust" else 0.0)
        else:
            yield {"name": words, "percent": 100 * value}
        if name == "pixel_accuracy" and record.segmented:
            known = {label: iou for label, iou in record.segmented.iou.items() if iou is not None}
            yield from ({"name": f"IoU of {label}", "percent": 100 * iou} for label, iou in known.items())
        for kind, severities in (record.corruptions or {}).items() if name == "corrupted" else ():
            mean = sum(severities) / len(severities)
            yield {"name": f"Corruption {kind}, mean of severities", "percent": 100 * mean}


def _image_fraction(name: str, fraction: float, n: int, slack: float = 0.0) -> Accuracy:
    interval = accuracy_interval([fraction], n, [slack])
    assert interval  # a fraction of images always has one
    bounds = [round(100 * bound, 2) for bound in interval]
    return {"name": name, "percent": 100 * fraction, "interval": bounds, "text": interval_cell(interval)}
