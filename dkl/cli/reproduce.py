"""``dkl reproduce table=N | figure=N | experiment=NAME``: all of a manifest trained, evaluated and tabulated.

First comes the plan: what is done, to resume and to do, and about how long that takes. What is done is not done again,
so the same command goes on after any interruption; two such commands, here or on machines that share ``results``, never
take the same job at the same time. A row that fails does not stop the others.
"""

import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from dkl.cli import launcher
from dkl.cli.fold import draw, tabulate
from dkl.cli.options import parse
from dkl.cli.planning import Task, find_impossible, find_tasks, refuse_paper_on_cpu, say_plan
from dkl.config import compose_config, run_folder
from dkl.console import say
from dkl.errors import BusyError, UserError
from dkl.files import is_locked, write_text
from dkl.manifests import Job, Manifest, load

PATIENCE, LONGEST = 2.0, 60.0
"""Seconds between looks at jobs that other processes have taken, the first time and in the end."""


def _evaluation(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of ``dkl evaluate`` for the run of ``cfg``."""
    paths = [f"paths.{key}={value}" for key, value in cfg.paths.items()]
    device = [f"device={cfg.trainer.device}", f"devices={cfg.trainer.devices}"]
    return compose_config("evaluate", [f"run='{run_folder(cfg)}'", *paths, *device, *overrides])


def _run(job: Job, cfg: DictConfig) -> None:
    """Train one job and make its evaluations."""
    from dkl.evaluation import evaluate
    from dkl.training import train

    train(cfg)
    for overrides in job.evaluations:
        evaluate(_evaluation(cfg, overrides))


def _attempt(job: Job, cfg: DictConfig) -> str | None:
    """Run a job; why it failed, or None. What is not the user's to mend is kept as ``error.log``."""
    folder = run_folder(cfg)
    log = folder / "error.log"
    if is_locked(folder / ".lock"):
        raise BusyError(f"another process is training {folder}")
    try:
        _run(job, cfg)
    except BusyError:
        raise
    except UserError as error:
        return str(error)
    except Exception as error:
        with suppress(OSError):  # such as a full disk, which may be why
            write_text(log, traceback.format_exc())
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]} (see {log})"
    log.unlink(missing_ok=True)
    return None


def _work(tasks: Sequence[Task], failures: dict[str, str]) -> None:
    """Run what is to do; jobs that other processes have taken, and their students, are waited for."""
    left = [task for task in tasks if not task.standing.done and task.job.title not in failures]
    said: set[str] = set()
    patience = PATIENCE
    while left:
        later: list[Task] = []
        for task in left:
            job, taken = task.job, {other.job.title for other in later}
            if job.teacher in taken:
                later.append(task)
                continue
            try:
                why = f"its {job.teacher} failed" if job.teacher in failures else _attempt(job, task.cfg)
            except BusyError as busy:
                if job.title not in said:
                    say(f"{job.title}: {busy}")
                said.add(job.title)
                later.append(task)
                continue
            if why:
                failures[job.title] = why
                say(f"failed: {job.title}: {why}")
        stuck = len(later) == len(left)
        if stuck:
            time.sleep(patience)
        patience = min(2 * patience, LONGEST) if stuck else PATIENCE
        left = later


def _collect(tasks: Sequence[Task]) -> None:
    """Collect what pictures need of every run that is trained."""
    from dkl.evaluation import collect_pictures

    for job, cfg, *_ in tasks:
        if (run_folder(cfg) / "checkpoint.pt").is_file():
            collect_pictures(_evaluation(cfg, job.evaluations[0]))


def _report(manifest: Manifest, tasks: Sequence[Task]) -> None:
    """Fold all records there, print this manifest's table, draw its figure, and say where everything is."""
    cfg = tasks[0].cfg
    results, budget = Path(cfg.paths.results), cfg.budget.name
    report = tabulate(results, include_smoke=budget == "smoke")
    print(report.markdown_of(manifest.figure.get("table", manifest.name), budget))
    for problem in report.problems:
        say(f"left out: {problem}")
    if manifest.figure:
        if manifest.figure["draw"] == "features":
            _collect(tasks)
        for path in draw(results, include_smoke=budget == "smoke"):
            if path.name.startswith(manifest.name):
                say(f"drawn: {path}")
    say(f"Tables (md, csv, tex, html): {results}/tables   RobustBench entries: {results}/model_info")
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
    refuse_paper_on_cpu(options, tasks)
    say_plan(manifest, tasks)
    started, failures = time.monotonic(), find_impossible(tasks)
    if options.launcher:
        to_do = [task.job for task in tasks if not task.standing.done and task.job.title not in failures]
        launcher.run(options, to_do, [task.job for task in tasks])
        left = [task for task in find_tasks(options) if not task.standing.done]
        failures = {task.job.title: f"{task.standing}: its log says why" for task in left} | failures
    else:
        _work(tasks, failures)
    minutes = (time.monotonic() - started) / 60
    say(f"{len(tasks) - len(failures)} of {len(tasks)} runs done in {minutes:.1f} min")
    if len(failures) < len(tasks):
        _report(manifest, tasks)
    for title, why in failures.items():
        say(f"failed: {title}: {why}")
    if failures:
        raise SystemExit(1)
    say(manifest.next or "Next: dkl train --help lists what else there is")


def one(arguments: list[str]) -> None:
    """What ``arguments`` name, in a process of a launcher: no plan, no tables. Raises UserError where a job failed."""
    failures: dict[str, str] = {}
    _work(find_tasks(parse(arguments)), failures)
    if failures:
        raise UserError("; ".join(f"{title}: {why}" for title, why in failures.items()))
