"""``dkl reproduce table=N | figure=N | experiment=NAME``: all of a manifest trained, evaluated and tabulated.

First comes the plan: what is done, to resume and to do, and about how long that takes. What is done is not done again,
so the same command goes on after any interruption; two such commands, here or on machines that share ``results``, never
take the same job at the same time. A row that fails does not stop the others.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from dkl.config import run_folder
from dkl.console import say
from dkl.manifests import Manifest, load
from dkl.reporting.grouping import group
from dkl.reproduction import launcher
from dkl.reproduction.options import parse
from dkl.reproduction.planning import PlannedJob, find_impossible, find_tasks, refuse_paper_on_cpu, say_plan
from dkl.reproduction.results import draw, tabulate
from dkl.reproduction.worker import evaluation_of, work


def _collect(tasks: Sequence[PlannedJob]) -> None:
    """Collect what pictures need of every run that is trained."""
    from dkl.evaluation import collect_pictures

    for job, cfg, *_ in tasks:
        if (run_folder(cfg) / "checkpoint.pt").is_file():
            collect_pictures(evaluation_of(cfg, job.evaluations[0]))


def _report(manifest: Manifest, tasks: Sequence[PlannedJob]) -> None:
    """Fold all records there, print this manifest's table, draw its figure, and say where everything is."""
    cfg = tasks[0].cfg
    results, budget = Path(cfg.paths.results), cfg.budget.name
    report = tabulate(results, include_smoke=budget == "smoke")
    if table := manifest.figure.get("table") if manifest.figure else manifest.name:
        print(report.markdown_of(table, budget))
    for problem in report.problems:
        say(f"left out: {problem}")
    if manifest.figure:
        if manifest.figure["draw"] == "features":
            _collect(tasks)
        for path in draw(results, include_smoke=budget == "smoke", begins=manifest.name):
            say(f"drawn: {path}")
    entries = f"   RobustBench entries: {results}/model_info" if (results / "model_info").is_dir() else ""
    say(f"Tables (md, csv, tex, html): {results}/tables{entries}")
    say(f"Records: {results}/records   Runs with curves and checkpoints: {results}/runs")
    say(f"A page of all this: dkl tables --html results={results}{' smoke=true' if budget == 'smoke' else ''}")


def reproduce(arguments: list[str]) -> None:
    """Run the command. Exits with 1 where a row failed, after all others are done."""
    options = parse(arguments)
    manifest, tasks = load(options.name), find_tasks(options)
    if options.dry_run:
        say_plan(manifest, tasks)
        for job, cfg, *_ in tasks:
            print(job.commands(str(run_folder(cfg))))
        return
    say_plan(manifest, tasks)
    refuse_paper_on_cpu(options, tasks)
    started, failures = time.monotonic(), find_impossible(tasks)
    if options.launcher:
        to_do = [task.job for task in tasks if not task.standing.done and task.job.title not in failures]
        launcher.run(options, to_do, [task.job for task in tasks])
        left = [task for task in find_tasks(options) if not task.standing.done]
        failures = {task.job.title: f"{task.standing}: its log says why" for task in left} | failures
    else:
        work(tasks, failures)
    minutes = (time.monotonic() - started) / 60
    say(f"{len(tasks) - len(failures)} of {len(tasks)} runs done in {minutes:.1f} min")
    if len(failures) < len(tasks):
        _report(manifest, tasks)
    for why, titles in group(failures, failures.__getitem__).items():
        say(f"failed: {', '.join(titles)}: {why}")
    if failures:
        raise SystemExit(1)
    say(manifest.next or "Next: dkl train --help lists what else there is")
