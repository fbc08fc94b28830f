"""Draws every figure for which there is data: manifests, records with their curves, and collected pictures.

Published values are drawn together with our runs of budget paper only. Other budgets have their own figures, whose
names end in the budget. Budget smoke is drawn only on request, and its titles say that it is no result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from dkl.config import row_identity
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest, identities
from dkl.records import Curves, Record, load_curves, load_flags
from dkl.reporting.boards.accuracy import accuracy_boards
from dkl.reporting.boards.cells import budget_title
from dkl.reporting.boards.configuration import headline_of, is_complete
from dkl.reporting.boards.leaderboard import leaderboards
from dkl.reporting.boards.paper import PaperBoard, paper_boards
from dkl.reporting.figures import series
from dkl.reporting.figures.pictures import Pictures, read_all
from dkl.reporting.figures.plots.curves import IN_255, robustness_curves, step_curves, training_curves
from dkl.reporting.figures.plots.dynamics import dynamics, panels
from dkl.reporting.figures.plots.features import embedding, margin_differences
from dkl.reporting.figures.plots.masks import iou_bars, read_masks, side_by_side
from dkl.reporting.figures.plots.model import class_accuracies, image_strip
from dkl.reporting.figures.plots.ranking import Ranked, ranking
from dkl.reporting.figures.plots.style import save
from dkl.reporting.figures.plots.tradeoff import tradeoff
from dkl.reporting.grouping import created_at, group, weights_kind
from dkl.reporting.names import attacks_label, slug

Drawing = tuple[str, Callable[[], Figure]]
"""A file name without extension, and the function that draws the figure."""

TITLE_WIDTH = 46
"""Characters of a title that fit into a column."""

PAPER_LOSSES = ("dkl.losses.DKL", "dkl.losses.IKL", "dkl.losses.GKL")
"""The paper's losses, whose rows have their own color."""


def draw_all(
    records: Sequence[Record],
    results: Path,
    manifests: Sequence[Manifest],
    include_smoke: bool = False,
    prefix: str = "",
) -> list[Path]:
    """Write every figure whose name starts with ``prefix`` as ``<results>/figures/<name>.png`` and ``.svg``.

    Returns the files. Broken files of pictures and curves are reported and left out.
    """
    pictures, problems = read_all(results / "figures" / "data")
    records = [record for record in records if include_smoke or record.budget != "smoke"]
    pictures = [found for found in pictures if include_smoke or found.budget != "smoke"]
    folder = results / "records"
    # Only tables with a figure and experiments are needed; the others would cost time.
    named = {manifest.figure.get("table") for manifest in manifests}
    tables = [found for found in manifests if found.name in named or series.radius_columns(found)]
    experiments = [found for found in manifests if not found.kind and found not in tables]
    boards = paper_boards(
        [*tables, *experiments],
        records,
        lambda record: load_flags(folder / f"{record.id}.json"),
        include_smoke,
        problems,
    )
    drawings = [
        *_tradeoffs(manifests, boards),
        *_features(manifests, pictures, problems),
        *_radii(tables, boards, records),
        *_steps(records),
        *_rankings(records, include_smoke),
        *_dynamics(boards, folder),
        *_curves(records, folder, problems),
        *_models(pictures),
        *_masks(records, results / "figures" / "masks", problems),
    ]
    for problem in problems:
        say(f"not drawn: {problem}")
    chosen = [(name, draw) for name, draw in drawings if name.startswith(prefix)]
    return [path for name, draw in chosen for path in save(draw, results / "figures" / name)]


def _title(*parts: str, width: int = TITLE_WIDTH) -> str:
    """Join ``parts`` by commas, in lines of ``width`` characters that end at commas unless a part is too long."""
    # Spaces inside a part do not break, so that lines end at commas.
    kept = (part if len(part) > width else part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)
    return fill(", ".join(kept), width).replace("\N{NO-BREAK SPACE}", " ")


def _seed(about: Mapping[str, Any]) -> str:
    """Return ``seed N``, or nothing for weights trained elsewhere."""
    return "" if about["seed"] is None else f"seed {about['seed']}"


def _name(manifest: Manifest, part: str, budget: str) -> str:
    """Return the file name of a ``part`` of a figure, which ends in the budget unless it is ``paper``."""
    name = manifest.name + part if manifest.kind else f"features-{manifest.name}-{part}"
    return name + ("" if budget == "paper" else f"-{budget}")


def _tradeoffs(manifests: Sequence[Manifest], boards: Sequence[PaperBoard]) -> Iterator[Drawing]:
    """Figure 2: the points of the table that its manifest names."""
    for manifest in manifests:
        if manifest.figure.get("draw") != "tradeoff":
            continue
        name, x, y, by = (manifest.figure[key] for key in ("table", "x", "y", "by"))
        table = next(found for found in manifests if found.name == name)
        of_it = [board for board in boards if board.manifest.name == name]
        own = {board.budget or "": series.measured_points(board, x, y, by) for board in of_it}
        points = {**own, "paper": [*series.published_points(table, x, y, by), *own.get("paper", [])]}
        # Budget paper has the published points and ours; other budgets have only ours.
        titles = {"x": f"{table.columns[x].title} accuracy", "y": table.columns[y].title}
        for budget, shown in points.items():
            title = _title(manifest.title, "" if budget == "paper" else budget_title(budget))
            if shown:
                yield _name(manifest, "", budget), partial(tradeoff, shown, title=title, **titles)


def _features(manifests: Sequence[Manifest], pictures: Sequence[Pictures], problems: list[str]) -> Iterator[Drawing]:
    """Figure 3 or one like it: the two rows that its manifest names, at one seed, on the same images."""
    for manifest in manifests:
        settings = manifest.figure
        trained = [found for found in pictures if found.about["training"] and settings.get("draw") == "features"]
        for budget, here in group(trained, lambda found: found.budget).items():
            try:
                hashes = identities(manifest, budget)
            except UserError as error:
                problems.append(f"{manifest.name}.yaml, budget {budget}: {error}")
                continue
            pairs = []
            # Margins and features are comparable only under the same conditions.
            for alike in group(here, lambda found: found.conditions).values():
                known = {row_identity(found.about["training"]): found for found in alike}
                pair = [known.get(hashes[settings[key]]) for key in ("first", "second")]
                pairs += [(first, second) for first, second in [pair] if first and second]
            if pairs:  # the pair with the most images, then the lowest seed
                first, second = min(pairs, key=lambda pair: (-pair[0].about["n"], pair[0].about["seed"]))
                rest = (_seed(first.about), budget_title(budget))
                for part, one in (("a", first), ("b", second)):
                    title = _title(f"{one.about['method']}: features", *rest)
                    yield _name(manifest, part, budget), partial(embedding, one, title=title)
                title = _title(f"Class margins: {first.about['method']} minus {second.about['method']}", *rest)
                yield _name(manifest, "c", budget), partial(margin_differences, first, second, title=title)


def _radii(tables: Sequence[Manifest], boards: Sequence[PaperBoard], records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by radius: tables with one column per radius, then all other records at several radii."""
    shown: set[str] = set()
    for table in filter(series.radius_columns, tables):
        lines = series.published_lines(table)
        for board in boards:
            if board.manifest.name == table.name and board.budget == "paper":
                lines += series.measured_lines(board)
                shown |= {record.id for row in board.rows for record in row.records}
        if lines:
            yield f"{table.name}-radii", partial(robustness_curves, lines, title=_title(table.title))
    # Records in a table's figure are not drawn a second time.
    attacked = [record for record in records if record.attacks and record.id not in shown]
    for alike in group(attacked, lambda r: (r.budget, r.dataset, r.norm, attacks_label(r))).values():
        if lines := series.record_lines(alike):
            one, attack = alike[0], attacks_label(alike[0])
            title = _title(f"{one.dataset}, {one.norm}, {attack}", budget_title(one.budget))
            name = slug(f"radii-{one.budget}-{one.dataset}-{one.norm}-{attack}")
            yield name, partial(robustness_curves, lines, title=title, unit=_unit(alike))


def _steps(records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by the number of steps: PGD and CW of one dataset, threat model and budget on one figure."""
    attacked = [record for record in records if series.steps_of(record)[0]]
    alike = group(attacked, lambda r: (r.budget, r.dataset, r.norm, r.eps_text, r.n, r.search.get("precision")))
    for same in alike.values():
        lines = [
            replace(line, label=f"{line.label}, {kind}")
            for kind, own in group(same, lambda record: series.steps_of(record)[0]).items()
            for line in series.step_lines(own)
        ]
        if lines:
            one, precision = same[0], str(same[0].search.get("precision", ""))
            threat, images = f"{one.norm} {one.eps_text}", f"{one.n:,} images"
            title = _title(one.dataset, threat, images, precision, budget_title(one.budget))
            name = slug(f"steps-{one.budget}-{one.dataset}-{one.norm}-{one.eps_text}-{one.n}-{precision}".rstrip("-"))
            yield name, partial(step_curves, lines, title=title)


def _unit(records: Sequence[Record]) -> str:
    """Return the unit in which the radii of ``records``, all of one norm, are easiest to read."""
    if records[0].norm != "Linf":
        return records[0].norm
    return IN_255 if any("/255" in record.eps_text for record in records) else "pixels in [0, 1]"


def _rankings(records: Sequence[Record], include_smoke: bool) -> Iterator[Drawing]:
    """One figure per board: its complete rows with every seed and the interval. Parts of AutoAttack are not drawn."""
    known = {record.id: record for record in records}
    for board in (*leaderboards(records, include_smoke), *accuracy_boards(records, include_smoke)):
        complete = [row for row in board.rows if is_complete(row)]
        if board.part or not complete:  # nothing there is ranked
            continue
        methods, rows = [row.method for row in complete], []
        for row in complete:
            found = [known[name] for name in row.record_ids]
            accuracies = [headline_of(one) for one in found]
            # The mean IoU of one seed has no interval: a line of no length stands for it.
            interval = row.interval or (accuracies[0], accuracies[0])
            loss = (found[0].training.get("loss") or {}).get("_target_")
            label = row.method if methods.count(row.method) == 1 else f"{row.method}, {row.weights}"
            rows.append(Ranked(label, accuracies, interval, ours=loss in PAPER_LOSSES))
        first = known[complete[0].record_ids[0]]
        metric = "top-1 accuracy" if first.robust is None else "robust accuracy"
        metric = "mean IoU" if first.segmented else metric
        yield f"ranking-{board.name}", partial(ranking, rows, title=_title(board.title), metric=metric)


def _dynamics(boards: Sequence[PaperBoard], folder: Path) -> Iterator[Drawing]:
    """Training dynamics: one figure per experiment that has trained two rows or more.

    An experiment that only evaluates the runs of one before it, by name, has none.
    """
    drawn: list[set[tuple[str, int | None]]] = []
    for board in sorted(boards, key=lambda board: board.manifest.name):
        runs = {(record.config_hash, record.seed) for row in board.rows for record in row.records}
        if board.manifest.kind or board.budget is None or any(runs <= earlier for earlier in drawn):
            continue
        drawn.append(runs)
        # Teachers train for longer. Broken curves are reported with the figure of their own row.
        rows = [row for row in board.rows if row.row not in board.manifest.teachers.values()]
        labels = [row.row.label for row in rows]
        found = [_seeds(row.records, folder, []) for row in rows]
        # Rows of one label, such as those of several datasets, are distinguished by their names.
        names = [label if labels.count(label) == 1 else row.row.name for label, row in zip(labels, rows, strict=True)]
        trained = {name: curves for name, curves in zip(names, found, strict=True) if curves}
        if panels(trained):
            title = _title(board.manifest.title, budget_title(board.budget), width=2 * TITLE_WIDTH)
            yield slug(f"dynamics-{board.name}"), partial(dynamics, trained, title=title)


def _seeds(records: Sequence[Record], folder: Path, problems: list[str]) -> list[Curves]:
    """Return the curves of ``records`` that have some, one per seed."""
    runs = []
    for same in group(records, lambda record: record.seed).values():
        try:
            runs.append(load_curves(folder / f"{max(same, key=created_at).id}.json"))
        except UserError as error:
            problems.append(str(error))
    return [run for run in runs if run]


def _curves(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[Drawing]:
    """Training curves: one figure per trained row, one line per seed."""
    for own in group((r for r in records if r.training), lambda r: (r.budget, r.row)).values():
        if runs := _seeds(own, folder, problems):
            one, seeds = own[0], f"{len(runs)} seeds" if len(runs) > 1 else f"seed {own[0].seed}"
            title = _title(one.method, one.dataset, one.architecture, seeds, budget_title(one.budget))
            name = slug(f"curves-{one.budget}-{one.dataset}-{one.architecture}-{one.method}-{one.row}")
            yield name, partial(training_curves, runs, title=title)


def _masks(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[Drawing]:
    """IoU per class, and images beside their masks: two figures per row of networks that label pixels."""
    dense = [record for record in records if record.segmented is not None]
    for own in group(dense, lambda record: (record.budget, record.row, weights_kind(record))).values():
        # The lowest seed stands for its row, by its newest evaluation of the most images: more would fill the page.
        lowest = min(own, key=lambda each: -1 if each.seed is None else each.seed).seed
        record = max((each for each in own if each.seed == lowest), key=lambda each: (each.n, created_at(each)))
        assert record.segmented is not None
        seed = "" if record.seed is None else f"seed {record.seed}"
        title = _title(record.method, record.dataset, seed, budget_title(record.budget))
        bars = partial(iou_bars, record.segmented.iou, record.segmented.miou, title=title)
        yield slug(f"iou-{record.budget}-{record.id}"), bars
        path = folder / f"{record.id}.npz"
        if path.is_file():
            try:
                yield slug(f"masks-{record.budget}-{record.id}"), partial(side_by_side, read_masks(path), title=title)
            except UserError as error:
                problems.append(str(error))


def _models(pictures: Sequence[Pictures]) -> Iterator[Drawing]:
    """Accuracy per class and a strip of images: one figure each per model."""
    for found in pictures:
        about = found.about
        title = _title(about["method"], about["dataset"], _seed(about), budget_title(found.budget))
        for kind, draw in (("classes", class_accuracies), ("images", image_strip)):
            yield slug(f"{kind}-{found.budget}-{about['id']}"), partial(draw, found, title=title)
