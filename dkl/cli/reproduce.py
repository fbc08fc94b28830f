"""``dkl reproduce table=N | figure=N | experiment=NAME``: all of a manifest trained, evaluated and tabulated.

First comes the plan: what is done, to resume and to do, and about how long that takes. What is done is not done again,
so the same command goes on after any interruption; two such commands, here or on machines that share ``results``, never
take the same job at the same time. A row that fails does not stop the others.
"""

import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.cli import launcher
from dkl.cli.help import choices
from dkl.cli.hydra_app import explain
from dkl.cli.options import Options, parse
from dkl.cli.standing import Standing, standing
from dkl.config import compose_config, run_folder
from dkl.console import say
from dkl.errors import BusyError, UserError
from dkl.files import write_text
from dkl.manifests import Job, Manifest, load, plan
from dkl.manifests.plan import Composer
from dkl.records import load_all

PATIENCE = 5.0
"""Seconds between looks at jobs that other processes have taken."""


class Task(NamedTuple):
    """A job, its configuration, and how far it is."""

    job: Job
    cfg: DictConfig
    standing: Standing


def _untrained(cfg: DictConfig) -> DictConfig:
    """``cfg`` with a network fresh from its box in the place of a teacher that is still to be trained."""
    cfg = cfg.copy()
    asked = OmegaConf.to_container(cfg.task.teacher, resolve=True)
    assert isinstance(asked, dict)
    network = {key: asked[key] for key in ("name", "num_classes", "in_chans", "mean", "std")}
    OmegaConf.update(cfg, "task.teacher", {"_target_": "dkl.models.create_model", **network}, merge=False)
    return cfg


def _tasks(options: Options) -> list[Task]:
    """Every job with its checked configuration, before any runs; seeds of a row are checked once."""
    from dkl.build import preflight

    compose, tasks = Composer(), list[Task]()
    checked: set[tuple[str, ...]] = set()
    try:
        for job in plan(options.name, options.request, compose):
            cfg = compose(job.train)
            row = tuple(text for text in job.train if not text.startswith("seed="))
            if row not in checked:
                fetched = OmegaConf.select(cfg, "task.teacher.pretrained")  # when its turn comes
                preflight(_untrained(cfg) if job.teacher or fetched else cfg)
                checked.add(row)
            tasks.append(Task(job, cfg, Standing(0, 0, 0, 0)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain("train", error) from None
    found, _ = load_all(Path(tasks[0].cfg.paths.results) / "records")
    return [Task(job, cfg, standing(job, cfg, found)) for job, cfg, _ in tasks]


def _say_plan(manifest: Manifest, tasks: Sequence[Task]) -> None:
    """Say which jobs there are, how far each is, and about how long the rest takes."""
    from dkl.cli.estimate import H100, duration, operations, speed

    cfg = tasks[0].cfg
    budget = cfg.budget.name
    say(f"{manifest.title}: {len(tasks)} runs at budget {budget}, into {cfg.paths.results}")
    say(f"  {choices('budget')[budget]}")
    left = [0.0 if task.standing.done else operations(*task) for task in tasks]
    rate, where = (H100, "one H100 (assumed speed)") if budget == "paper" else (0.0, "this machine")
    if any(left) and not rate:
        rate = speed(max(zip(left, tasks, strict=True), key=lambda pair: pair[0])[1].cfg)
    for number, (task, cost) in enumerate(zip(tasks, left, strict=True), 1):
        about = f", about {duration(cost / rate)}" if cost else ""
        say(f"  {number}/{len(tasks)}  {task.job.title}: {task.standing}{about}  {run_folder(task.cfg)}")
    if any(left):
        say(f"  left: about {duration(sum(left) / rate)} on {where}; an estimate, right to a factor of two or so")


def _refuse_paper_on_cpu(options: Options, tasks: Sequence[Task]) -> None:
    """Raise UserError where the paper's size would run on a CPU and nobody said that it should."""
    from dkl.build import pick_device
    from dkl.cli.estimate import H100, duration, operations

    cfg = tasks[0].cfg
    if cfg.budget.name != "paper" or all(task.standing.done for task in tasks):
        return
    if cfg.trainer.device != "auto" or pick_device("auto").type != "cpu" or options.launcher:
        return
    left = duration(sum(operations(*task) for task in tasks if not task.standing.done) / H100)
    command = f"dkl reproduce {options.name.replace('-', '=').replace('=0', '=')}"
    raise UserError(
        f"budget=paper is for GPUs, and there is none here: about {left} on one H100. Instead: {command} budget=mini "
        f"(cut down to what a CPU can do), or {command} budget=smoke (seconds, to see that it runs); "
        "trainer.device=cpu insists"
    )


def _impossible(tasks: Sequence[Task]) -> dict[str, str]:
    """Jobs whose images are not here, and why: said before the others start, not weeks later."""
    from dkl.build import load_data, load_synthetic

    found: dict[str, str] = {}
    known: dict[str, str | None] = {}
    for job, cfg, how_far in tasks:
        if how_far.done:
            continue
        key = OmegaConf.to_yaml(cfg.data, resolve=True)
        if key not in known:
            try:
                load_synthetic(cfg.data)
                load_data(cfg.data)
                known[key] = None
            except UserError as error:
                known[key] = str(error)
        if why := known[key]:
            found[job.title] = why
            say(f"cannot run {job.title}: {why}")
    return found


def _run(job: Job, cfg: DictConfig) -> list[Path]:
    """Train one job and make its evaluations; returns the paths of its records."""
    from dkl.evaluation import evaluate
    from dkl.training import train

    folder = train(cfg)
    paths = [f"paths.{key}={value}" for key, value in cfg.paths.items()]
    device = [f"device={cfg.trainer.device}", f"devices={cfg.trainer.devices}"]
    common = [f"run='{folder}'", *paths, *device]
    return [evaluate(compose_config("evaluate", [*common, *overrides])) for overrides in job.evaluations]


def _attempt(job: Job, cfg: DictConfig) -> str | None:
    """Run a job; why it failed, or None. What is not the user's to mend is kept as ``error.log`` in the run's folder."""
    try:
        _run(job, cfg)
    except BusyError:
        raise
    except UserError as error:
        return str(error)
    except Exception as error:
        log = run_folder(cfg) / "error.log"
        write_text(log, traceback.format_exc())
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]} (see {log})"
    return None


def _work(tasks: Sequence[Task], failures: dict[str, str]) -> None:
    """Run what is to do; jobs that other processes have taken, and their students, are waited for."""
    left = [task for task in tasks if not task.standing.done and task.job.title not in failures]
    while left:
        later: list[Task] = []
        for job, cfg, how_far in left:
            if job.teacher in {task.job.title for task in later}:
                later.append(Task(job, cfg, how_far))
                continue
            try:
                why = f"its {job.teacher} failed" if job.teacher in failures else _attempt(job, cfg)
            except BusyError as busy:
                say(f"{job.title}: {busy}")
                later.append(Task(job, cfg, how_far))
                continue
            if why:
                failures[job.title] = why
                say(f"failed: {job.title}: {why}")
        if len(later) == len(left):
            time.sleep(PATIENCE)
        left = later


def _tabulate(manifest: Manifest, results: Path, tasks: Sequence[Task]) -> None:
    """Fold all records there, print this manifest's tables, and say where everything is."""
    from dkl.reporting import write_tables

    smoke = tasks[0].cfg.budget.name == "smoke"
    if manifest.figure:
        from dkl.evaluation import collect_pictures

        for task in tasks:
            collect_pictures(task.cfg)
    report = write_tables(results / "records", results / "tables", results / "model_info", include_smoke=smoke)
    print(report.markdown)
    for problem in report.problems:
        say(f"left out: {problem}")
    say(f"Tables (md, csv, tex, html): {results}/tables   RobustBench entries: {results}/model_info")
    say(f"Records: {results}/records   Runs with curves and checkpoints: {results}/runs")


def reproduce(arguments: list[str]) -> None:
    """Run the command. Exits with 1 where a row failed, after all others are done."""
    options = parse(arguments)
    manifest, tasks = load(options.name), _tasks(options)
    if options.dry_run:
        _say_plan(manifest, tasks)
        for job, cfg, _ in tasks:
            print(job.commands(str(run_folder(cfg))))
        return
    _refuse_paper_on_cpu(options, tasks)
    _say_plan(manifest, tasks)
    started, failures = time.monotonic(), _impossible(tasks)
    if options.launcher:
        launcher.run(options, [task.job for task in tasks if not task.standing.done and task.job.title not in failures])
        ended = {task.job.title: f"{task.standing}: its log says why" for task in _tasks(options) if not task.standing.done}
        failures = ended | failures
    else:
        _work(tasks, failures)
    minutes = (time.monotonic() - started) / 60
    say(f"{len(tasks) - len(failures)} of {len(tasks)} runs done in {minutes:.1f} min")
    if len(failures) < len(tasks):
        _tabulate(manifest, Path(tasks[0].cfg.paths.results), tasks)
    for title, why in failures.items():
        say(f"failed: {title}: {why}")
    if failures:
        raise SystemExit(1)
    say(manifest.next or "Next: dkl train --help lists what else there is")


def one(arguments: list[str]) -> None:
    """The jobs that ``arguments`` name, in a process of a launcher: no plan, no tables. Raises UserError on failures."""
    failures: dict[str, str] = {}
    _work(_tasks(parse(arguments)), failures)
    if failures:
        raise UserError("; ".join(f"{title}: {why}" for title, why in failures.items()))
