"""Tables, figures and the page of a results folder, made from its records."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from dkl.console import say
from dkl.errors import UserError, needs_extra
from dkl.manifests import Manifest
from dkl.manifests import load_all as load_manifests
from dkl.records import load_all
from dkl.reporting import TablesReport, write_tables
from dkl.reporting.grouping import load_with_reference
from dkl.reporting.tables import FORMATS
from dkl.reproduction.planning import PlannedJob


def draw(results: Path, *, include_smoke: bool = False, begins: str = "") -> list[Path]:
    """Draw every figure that has records of ``results`` and whose name starts with ``begins``; return the files.

    Raises NotInstalledError if matplotlib is missing.
    """
    with needs_extra("figures"):
        from dkl.reporting.figures import draw_all

    records, _ = load_all(results / "records")
    manifests, _ = load_manifests(results)  # the tables report those that are wrong
    return draw_all(records, results, manifests, include_smoke=include_smoke, prefix=begins)


def not_rewritten(results: Path, written: Sequence[Path]) -> list[str]:
    """Name the tables and figures of earlier commands, in the folders of the files just ``written``.

    They may show records that are gone or renamed. A table counts if it has all formats, a figure if it has both: the
    other files are not of ``dkl``.
    """
    now = {path.with_suffix("") for path in written}
    kinds = {results / "tables": tuple(FORMATS), results / "figures": ("png", "svg")}
    return [
        str(path.with_suffix(""))
        for folder, (first, *others) in kinds.items()
        if any(path.parent == folder for path in written)
        for path in sorted(folder.glob(f"*.{first}"))
        if path.with_suffix("") not in now and all(path.with_suffix(f".{other}").is_file() for other in others)
    ]


def write_page(results: Path, report: TablesReport, figures: Sequence[Path]) -> Path:
    """Write ``<results>/index.html``, one page with all tables, figures and records; return its path."""
    from dkl.reporting.site import write_site

    records, _ = load_with_reference(results)
    manifests, _ = load_manifests(results)
    return write_site(results, records, report.boards, figures, report.problems, manifests)


def show_results(manifest: Manifest, jobs: Sequence[PlannedJob], *, html: bool) -> None:
    """Write all tables, print the manifest's own, draw its figure (all and the page if ``html``), print the paths."""
    settings, is_figure = jobs[0].run.settings, manifest.kind == "figure"
    results, smoke = Path(settings.paths.results), settings.budget.name == "smoke"
    report = write_tables(results, include_smoke=smoke)
    if table := manifest.figure.get("table") if is_figure else manifest.name:
        print(report.text_of(table, settings.budget.name))
    for problem in report.problems:
        say(f"left out: {problem}")
    if manifest.pictures and (is_figure or html):
        _collect_pictures(jobs, manifest.pictures)
    figures = []
    if is_figure or html:
        figures = draw(results, include_smoke=smoke, begins="" if html else manifest.name)
    for path in figures if is_figure else []:
        say(f"drawn: {path}")
    entries = f"   RobustBench entries: {results}/model_info" if (results / "model_info").is_dir() else ""
    say(f"Tables (md, csv, tex, html): {results}/tables{entries}")
    say(f"Records: {results}/records   Runs with curves and checkpoints: {results}/runs")
    if html:
        say(f"Page with tables, curves, figures and attacked images: {write_page(results, report, figures)}")
    else:
        command = ["dkl", "tables", "--html", f"results={results}", *(["smoke=true"] if smoke else [])]
        say(f"One page with everything: {shlex.join(command)}")


def _collect_pictures(jobs: Sequence[PlannedJob], overrides: Sequence[str]) -> None:
    """Collect the features and images that figures need, from every trained run; ``overrides`` name the attack.

    A run that is not complete is named, and the others are drawn.
    """
    from dkl.evaluation import collect_pictures

    for planned in jobs:
        if (planned.run.folder / "checkpoint.pt").is_file():
            try:
                collect_pictures(planned.run.evaluation(overrides))
            except UserError as error:
                say(f"no pictures of {planned.title}: {error}")
