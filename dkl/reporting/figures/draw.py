"""Draws every figure for which there is data: manifests, records with their curves, and collected pictures.

Published values are drawn together with our runs of budget paper only. Other budgets have their own figures, whose
names end in the budget. Budget smoke is drawn only on request, and its titles say that it is no result.
"""

from collections.abc import Sequence
from pathlib import Path

from dkl.console import say
from dkl.manifests import Manifest
from dkl.records import Record, load_flags
from dkl.reporting.boards.paper import paper_boards
from dkl.reporting.figures import of_boards, of_runs, series
from dkl.reporting.figures.pictures import read_all
from dkl.reporting.figures.plots.style import save


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
        *of_boards.claims(boards),
        *of_boards.tradeoffs(manifests, boards),
        *of_boards.tradeoffs_of_experiments(boards),
        *of_runs.features(manifests, pictures, problems),
        *of_boards.radii(tables, boards, records),
        *of_runs.steps(records),
        *of_boards.rankings(records, include_smoke),
        *of_boards.training_dynamics(boards, folder),
        *of_runs.curves(records, folder, problems),
        *of_runs.models(pictures),
        *of_runs.masks(records, results / "figures" / "masks", problems),
    ]
    for problem in problems:
        say(f"not drawn: {problem}")
    chosen = [(name, draw) for name, draw in drawings if name.startswith(prefix)]
    return [path for name, draw in chosen for path in save(draw, results / "figures" / name)]
