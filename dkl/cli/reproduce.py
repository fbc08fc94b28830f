"""``dkl reproduce experiment=NAME`` or ``table=N``: all of a manifest trained, evaluated and put into a table.

What is done is not done again, so the same command goes on after any interruption. A row that fails does not stop the
others.
"""

import time
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.cli.hydra_app import explain
from dkl.cli.manifests import Job, manifest, plan
from dkl.config import compose_config, run_folder
from dkl.console import say
from dkl.errors import UserError


def _experiment(name: str | None, table: str | None) -> str:
    """The manifest's name; ``table=2`` is table-02."""
    if name and table:
        raise UserError(f"experiment={name} and table={table} name two manifests: give one")
    if table is None:
        return name or "quickstart"
    if not table.isdecimal():
        raise UserError(f"table={table} must be the number of a table of the paper, such as table=2")
    return f"table-{int(table):02d}"


def _split(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Options of this command, and what goes on to every ``dkl train``."""
    own: dict[str, Any] = dict.fromkeys(("experiment", "table", "seed", "budget", "row", "dry_run"))
    extra = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is no KEY=VALUE")
        if key in own:
            own[key] = value
        else:
            extra.append(argument)
    own["dry_run"] = str(own["dry_run"]).lower() == "true"
    own["experiment"] = _experiment(own["experiment"], own["table"])
    try:
        own["seed"] = [int(seed) for seed in own["seed"].split(",")] if own["seed"] else None
    except ValueError:
        raise UserError(f"seed={own['seed']} must be whole numbers such as 0,1,2") from None
    return own, extra


def _untrained(cfg: DictConfig) -> DictConfig:
    """``cfg`` with a network fresh from its box in the place of a teacher that is still to be trained."""
    cfg = cfg.copy()
    asked = OmegaConf.to_container(cfg.task.teacher, resolve=True)
    assert isinstance(asked, dict)
    network = {key: asked[key] for key in ("name", "num_classes", "in_chans", "mean", "std")}
    OmegaConf.update(cfg, "task.teacher", {"_target_": "dkl.models.create_model", **network}, merge=False)
    return cfg


def _prepare(jobs: list[Job]) -> list[DictConfig]:
    """The checked training configuration of every job, before any runs."""
    from dkl.build import preflight

    configs: list[DictConfig] = []
    for job in jobs:
        try:
            cfg = compose_config("train", job.train)
            planned = OmegaConf.select(cfg, "task.teacher.run") in [str(run_folder(earlier)) for earlier in configs]
            preflight(_untrained(cfg) if planned else cfg)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain("train", error) from None
        configs.append(cfg)
    return configs


def _plan(own: dict[str, Any], extra: list[str]) -> list[Job]:
    """The jobs that the options name; a teacher's configuration is composed to know its run."""
    try:
        return plan(own["experiment"], seeds=own["seed"], budget=own["budget"], row=own["row"], extra=extra)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain("train", error) from None


def _impossible(jobs: list[Job], configs: list[DictConfig]) -> dict[str, str]:
    """Jobs whose synthetic images are not here, and why: said before the others start, not weeks later."""
    from dkl.build import load_synthetic

    found: dict[str, str] = {}
    for job, cfg in zip(jobs, configs, strict=True):
        try:
            load_synthetic(cfg.data)
        except UserError as error:
            found[job.title] = str(error)
            say(f"cannot run {job.title}: {error}")
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


def _tabulate(results: Path) -> None:
    """Fold all records there, print the tables, and say where everything is."""
    from dkl.reporting import write_tables

    report = write_tables(results / "records", results / "tables", results / "model_info")
    print(report.markdown)
    for problem in report.problems:
        say(f"left out: {problem}")
    say(f"Tables (md, csv, tex, html): {results}/tables   RobustBench entries: {results}/model_info")
    say(f"Records: {results}/records   Runs with curves and checkpoints: {results}/runs")


def reproduce(arguments: list[str]) -> None:
    """Run the command. Exits with 1 where a row failed, after all others are done."""
    own, extra = _split(arguments)
    jobs = _plan(own, extra)
    configs = _prepare(jobs)
    for number, (job, cfg) in enumerate(zip(jobs, configs, strict=True), 1):
        say(f"{number}/{len(jobs)}  {job.title}  {run_folder(cfg)}")
        if own["dry_run"]:
            print(job.commands(str(run_folder(cfg))))
    if own["dry_run"]:
        return
    started, failures = time.monotonic(), _impossible(jobs, configs)
    for job, cfg in zip(jobs, configs, strict=True):
        if job.title in failures:
            continue
        try:
            _run(job, cfg)
        except UserError as error:
            failures[job.title] = str(error)
            say(f"failed: {job.title}: {error}")
    minutes = (time.monotonic() - started) / 60
    say(f"{len(jobs) - len(failures)} of {len(jobs)} rows done in {minutes:.1f} min")
    if len(failures) < len(jobs):
        _tabulate(Path(configs[0].paths.results))
    for title, why in failures.items():
        say(f"failed: {title}: {why}")
    if failures:
        raise SystemExit(1)
    say(manifest(own["experiment"]).get("next", "Next: dkl train --help lists what else there is"))
