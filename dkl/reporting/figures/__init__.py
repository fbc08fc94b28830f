"""Draws Figures 2 and 3 of the paper and figures of runs, from manifests, records and arrays, as PNG and SVG.

Published values are drawn together with our runs of budget paper only. Other budgets have their own figures, whose
names end in the budget. Budget smoke is drawn only on request, and its titles say that it is no result.
"""

from collections.abc import Sequence
from pathlib import Path

from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest
from dkl.records import Record, load_flags
from dkl.reporting.boards.paper import paper_boards, papers_order
from dkl.reporting.figures import claims, curves, pictures, robustness
from dkl.reporting.figures.style import save
from dkl.reporting.figures.tradeoff import tradeoffs
from dkl.reporting.grouping import is_reference


def draw_all(
    records: Sequence[Record],
    results: Path,
    manifests: Sequence[Manifest],
    include_smoke: bool = False,
    prefix: str = "",
) -> list[Path]:
    """Write every figure whose name starts with ``prefix`` as ``<results>/figures/<name>.png`` and ``.svg``.

    Reference records are not drawn. Returns the files. Broken files of pictures and curves are reported and left out.
    """
    problems: list[str] = []
    models: list[pictures.Pictures] = []
    for path in sorted((results / "figures" / "data").glob("*.npz")):
        try:
            models.append(pictures.read(path))
        except UserError as error:
            problems.append(str(error))
    records = [r for r in records if (include_smoke or r.budget != "smoke") and not is_reference(r)]
    models = [model for model in models if include_smoke or model.about["budget"] != "smoke"]
    folder = results / "records"
    # Only tables with a figure and experiments are needed; the others would cost time.
    named = {manifest.figure.get("table") for manifest in manifests}
    tables = [table for table in manifests if table.name in named or robustness.radius_columns(table)]
    experiments = [manifest for manifest in manifests if not manifest.kind and manifest not in tables]
    boards = paper_boards(
        [*tables, *experiments],
        records,
        lambda record: load_flags(folder / f"{record.id}.json"),
        include_smoke,
        problems,
    )
    boards.sort(key=papers_order)
    drawings = [
        *claims.claims(boards),
        *tradeoffs(manifests, boards),
        *pictures.features(manifests, models, problems),
        *robustness.radii(tables, boards, records),
        *robustness.steps(records),
        *claims.rankings(records, include_smoke),
        *curves.training_dynamics(boards, folder),
        *curves.curves(records, folder, problems),
        *pictures.models(models),
        *pictures.masks(records, results / "figures" / "masks", problems),
    ]
    for problem in problems:
        say(f"not drawn: {problem}")
    chosen = [(name, draw) for name, draw in drawings if name.startswith(prefix)]
    return [path for name, draw in chosen for path in save(draw, results / "figures" / name)]
