"""``dkl reproduce table=N | figure=N | experiment=NAME``: train, evaluate and tabulate everything in a manifest.

First it prints the plan: which jobs are done, which continue, which start, and how long that takes. Finished work is
never repeated, so after an interruption the same command continues. Two such commands on one results folder never take
the same job at the same time. Failed rows are reported at the end; the others continue.
"""

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from dkl.config.overrides import check_hydras_own
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest, load
from dkl.reporting.grouping import group
from dkl.reproduction.announce import estimates, no_estimate, print_plan, refuse_paper_on_cpu, warn_of_changed_rows
from dkl.reproduction.launcher import launch
from dkl.reproduction.options import parse
from dkl.reproduction.planning import PlannedJob, find_blocked, plan_jobs
from dkl.reproduction.remaining import Remaining
from dkl.reproduction.results import check_drawing, draw, tabulate, write_page
from dkl.reproduction.worker import run_jobs
from dkl.runtime.device import pick_device
from dkl.runtime.distributed import launched, launched_group
from dkl.storage.files import check_writable


def reproduce(arguments: list[str]) -> None:
    """Run the command. Exits with 1 if a row failed, after all others are done.

    With torchrun all its processes share the work of each row, and a row that fails ends the command.
    """
    options, first = parse(arguments), os.environ.get("RANK", "0") == "0"
    check_hydras_own("reproduce", options.launcher)
    manifest, jobs = load(options.name), plan_jobs(options)
    failures: dict[str, str] = {}
    predicted, basis = estimates(jobs) if first else ([no_estimate(planned) for planned in jobs], "")
    remaining = Remaining(jobs, predicted, failures)
    print_plan(manifest, jobs, remaining, basis)
    warn_of_changed_rows(manifest, jobs, options.request)
    if options.dry_run:
        for planned in jobs if first else ():
            print(planned.job.commands(str(planned.run.folder)))
        return
    refuse_paper_on_cpu(options, jobs, remaining)
    if manifest.kind == "figure" or options.html:
        check_drawing(manifest)
    for planned in jobs:
        check_writable(planned.run.folder)
    started = time.monotonic()
    failures |= find_blocked(jobs)
    kind = pick_device(jobs[0].run.settings.trainer.device).type
    with remaining.watched(), launched_group(kind) if launched() > 1 else nullcontext():
        if options.launcher:
            launch(options, jobs, list(failures))
        else:
            run_jobs(jobs, failures, remaining.say)
    if not first:  # of several processes that torchrun has started
        return
    if options.launcher:
        left = [planned for planned in plan_jobs(options) if not planned.done]
        failures = {planned.title: f"{planned.progress}: see its log" for planned in left} | failures
    minutes = (time.monotonic() - started) / 60
    say(f"{len(jobs) - len(failures)} of {len(jobs)} runs done in {minutes:.1f} min")
    try:
        if len(failures) < len(jobs):
            _show_results(manifest, jobs, html=options.html)
    finally:  # also if the results cannot be shown, such as on a full disk
        for reason, titles in group(failures, failures.__getitem__).items():
            say(f"failed: {', '.join(titles)}: {reason}")
    if failures:
        raise SystemExit(1)
    say(manifest.next or "Next: dkl train --help lists all options")


def _show_results(manifest: Manifest, jobs: Sequence[PlannedJob], *, html: bool) -> None:
    """Write all tables, print the manifest's own, draw its figure (all and the page if ``html``), print the paths."""
    settings, is_figure = jobs[0].run.settings, manifest.kind == "figure"
    results, smoke = Path(settings.paths.results), settings.budget.name == "smoke"
    report = tabulate(results, include_smoke=smoke)
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
