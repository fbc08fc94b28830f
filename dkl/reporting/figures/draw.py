"""Every figure that can be drawn from what there is: manifests, records with their curves, and collected pictures.

Published figures stand beside runs of budget paper alone; runs of another budget have figures of their own, whose names
end in it. Nothing of budget smoke is drawn unless it is asked for, and then its title says that it is no result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from dkl.config import row_identity
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest, identities
from dkl.records import Record, load_curves, load_flags
from dkl.reporting.boards.base import budget_title
from dkl.reporting.boards.paper import paper_boards
from dkl.reporting.boards.paper_board import PaperBoard
from dkl.reporting.figures import rows
from dkl.reporting.figures.curves import robustness, training
from dkl.reporting.figures.features import embedding, margin_differences
from dkl.reporting.figures.model import class_accuracies, strip
from dkl.reporting.figures.pictures import Pictures, read_all
from dkl.reporting.figures.style import save
from dkl.reporting.figures.tradeoff import tradeoff
from dkl.reporting.grouping import age, group
from dkl.reporting.names import attacks_label, display_architecture, slug

Drawing = tuple[str, Callable[[], Figure]]
"""A file's name without its ending, and what draws it."""

TITLE = 46
"""Characters of a title that a column holds."""


def draw_all(
    records: Sequence[Record],
    results: Path,
    manifests: Sequence[Manifest],
    include_smoke: bool = False,
    begins: str = "",
) -> list[Path]:
    """Write every figure whose name ``begins`` so as ``<results>/figures/<name>.png`` and ``.svg``; returns the files.

    Broken files of pictures and curves are named and left out.
    """
    pictures, problems = read_all(results / "figures" / "data")
    records = [record for record in records if include_smoke or record.budget != "smoke"]
    pictures = [found for found in pictures if include_smoke or found.budget != "smoke"]
    folder = results / "records"
    drawn = {manifest.figure.get("table") for manifest in manifests}
    tables = [manifest for manifest in manifests if manifest.name in drawn or rows.radii(manifest)]
    boards = paper_boards(tables, records, lambda record: load_flags(folder / f"{record.id}.json"), include_smoke)
    drawings = [
        *_tradeoffs(manifests, boards),
        *_features(manifests, pictures),
        *_radii(tables, boards, records),
        *_curves(records, folder, problems),
        *_models(pictures),
    ]
    for problem in problems:
        say(f"left out: {problem}")
    chosen = [(name, draw) for name, draw in drawings if name.startswith(begins)]
    return [path for name, draw in chosen for path in save(draw, results / "figures" / name)]


def _title(*parts: str) -> str:
    """``parts`` with commas between, in lines that a column holds, which end at commas unless a part is longer."""
    kept = (part if len(part) > TITLE else part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)
    return fill(", ".join(kept), TITLE).replace("\N{NO-BREAK SPACE}", " ")


def _seed(about: Mapping[str, Any]) -> str:
    """Nothing where weights were trained elsewhere."""
    return "" if about["seed"] is None else f"seed {about['seed']}"


def _name(manifest: Manifest, part: str, budget: str) -> str:
    """A figure's file; it names the budget where that is not the paper's."""
    return manifest.name + part + ("" if budget == "paper" else f"-{budget}")


def _tradeoffs(manifests: Sequence[Manifest], boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Figure 2: the points of the table it names."""
    for manifest in manifests:
        if manifest.figure.get("draw") != "tradeoff":
            continue
        name, x, y, by = (manifest.figure[key] for key in ("table", "x", "y", "by"))
        table = next(found for found in manifests if found.name == name)
        of_it = [board for board in boards if board.manifest.name == name]
        own = {board.budget or "": rows.measured_points(board, x, y, by) for board in of_it}
        points = {**own, "paper": [*rows.published_points(table, x, y, by), *own.get("paper", [])]}
        titles = {"x": f"{table.columns[x].title} accuracy", "y": table.columns[y].title}
        for budget, shown in points.items():
            title = _title(manifest.title, "" if budget == "paper" else budget_title(budget))
            if shown:
                yield _name(manifest, "", budget), partial(tradeoff, shown, title=title, **titles)


def _features(manifests: Sequence[Manifest], pictures: Sequence[Pictures]) -> Iterator[Drawing]:
    """Figure 3: the two rows it names, at the same seed, on the same images, under the same attack."""
    for manifest in manifests:
        settings = manifest.figure
        trained = [found for found in pictures if found.about["training"] and settings.get("draw") == "features"]
        for budget, here in group(trained, lambda found: found.budget).items():
            hashes = identities(manifest, budget)
            pairs = []
            for alike in group(here, lambda found: found.compared).values():
                known = {row_identity(found.about["training"]): found for found in alike}
                pair = [known.get(hashes[settings[key]]) for key in ("first", "second")]
                pairs += [(first, second) for first, second in [pair] if first and second]
            if pairs:  # of the most images, and of these the first seed
                first, second = min(pairs, key=lambda pair: (-pair[0].about["n"], pair[0].about["seed"]))
                rest = (_seed(first.about), budget_title(budget))
                for part, one in (("a", first), ("b", second)):
                    title = _title(f"{one.about['method']}: features", *rest)
                    yield _name(manifest, part, budget), partial(embedding, one, title=title)
                title = _title(f"Class margins: {first.about['method']} minus {second.about['method']}", *rest)
                yield _name(manifest, "c", budget), partial(margin_differences, first, second, title=title)


def _radii(tables: Sequence[Manifest], boards: Sequence[PaperBoard], records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness against radius: of tables with a column a radius, and of all other records at several radii."""
    shown: set[str] = set()
    for table in filter(rows.radii, tables):
        lines = rows.published_lines(table)
        for board in boards:
            if board.manifest.name == table.name and board.budget == "paper":
                lines += rows.measured_lines(board)
                shown |= {record.id for row in board.rows for record in row.records}
        if lines:
            yield f"{table.name}-radii", partial(robustness, lines, title=_title(table.title))
    attacked = [record for record in records if record.attacks and record.id not in shown]
    for alike in group(attacked, lambda r: (r.budget, r.dataset, r.norm, attacks_label(r))).values():
        if lines := rows.lines_of(alike):
            one, attack = alike[0], attacks_label(alike[0])
            title = _title(f"{one.dataset}, {one.norm}, {attack}", budget_title(one.budget))
            name = slug(f"radii-{one.budget}-{one.dataset}-{one.norm}-{attack}")
            yield name, partial(robustness, lines, title=title, norm=one.norm)


def _curves(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[Drawing]:
    """Training curves, one figure a trained row with a line a seed."""
    for own in group((r for r in records if r.training), lambda r: (r.budget, r.row)).values():
        runs = []
        for same in group(own, lambda record: record.seed).values():
            try:
                runs.append(load_curves(folder / f"{max(same, key=age).id}.json"))
            except UserError as error:
                problems.append(str(error))
        if runs := [run for run in runs if run]:
            one, seeds = own[0], f"{len(runs)} seeds" if len(runs) > 1 else f"seed {own[0].seed}"
            title = _title(
                one.method, one.dataset, display_architecture(one.architecture), seeds, budget_title(one.budget)
            )
            name = slug(f"curves-{one.budget}-{one.dataset}-{one.architecture}-{one.method}-{one.row}")
            yield name, partial(training, runs, title=title)


def _models(pictures: Sequence[Pictures]) -> Iterator[Drawing]:
    """The accuracies of every class, and a strip of images, one figure each a model."""
    for found in pictures:
        about = found.about
        title = _title(about["method"], about["dataset"], _seed(about), budget_title(found.budget))
        for kind, draw in (("classes", class_accuracies), ("images", strip)):
            yield slug(f"{kind}-{found.budget}-{about['id']}"), partial(draw, found, title=title)
