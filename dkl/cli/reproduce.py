"""``dkl reproduce experiment=NAME``: every row and seed of a manifest trained, evaluated and put into a table.

A manifest (``experiments/NAME.yaml``) has a ``title``, common ``overrides`` of ``dkl train``, ``sizes`` that hold where
no ``budget`` is given, ``evaluate`` overrides, ``seeds``, a line on what to do ``next``, and ``rows``, each with a
``label`` and its ``overrides``. What is done is not done again, so the same command goes on after any interruption. A
row that fails does not stop the others.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.cli.help import choices
from dkl.cli.hydra_app import explain
from dkl.config import compose_config, run_folder, shipped
from dkl.console import say
from dkl.errors import UserError


@dataclass(frozen=True)
class Job:
    """One row at one seed: its overrides of ``dkl train``, and those of ``dkl evaluate``."""

    label: str
    seed: int
    train: list[str]
    evaluate: list[str]

    def commands(self) -> str:
        """The plain commands this job stands for."""
        quoted = [f"'{text}'" if set(text) & set(" []{}") else text for text in self.train]
        return f"dkl train {' '.join(quoted)}\ndkl evaluate run=RUN {' '.join(self.evaluate)}"


def manifest(name: str) -> DictConfig:
    path = shipped("experiments") / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no experiment {name!r}; there are {', '.join(choices('experiments'))}")
    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    return content


def plan(name: str, *, seeds: list[int] | None, budget: str | None, row: str | None, extra: list[str]) -> list[Job]:
    """The jobs of a manifest, in order. Raises UserError on an unknown experiment or row."""
    found = manifest(name)
    labels = [entry.label for entry in found.rows]
    if row is not None and row not in labels:
        raise UserError(f"{name} has no row {row!r}; it has {', '.join(labels)}")
    jobs = []
    for entry in found.rows:
        if row in (None, entry.label):
            for seed in seeds or found.seeds:
                sizes = [f"budget={budget}"] if budget else found.get("sizes", [])
                overrides = [*found.overrides, *sizes, *entry.overrides, f"label={entry.label}", f"seed={seed}"]
                jobs.append(Job(entry.label, seed, [*overrides, *extra], list(found.evaluate)))
    return jobs


def _split(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Options of this command, and what goes on to every ``dkl train``."""
    own: dict[str, Any] = {"experiment": "quickstart", "seed": None, "budget": None, "row": None, "dry_run": False}
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
    try:
        own["seed"] = [int(seed) for seed in own["seed"].split(",")] if own["seed"] else None
    except ValueError:
        raise UserError(f"seed={own['seed']} must be whole numbers such as 0,1,2") from None
    return own, extra


def _prepare(jobs: list[Job]) -> list[DictConfig]:
    """The checked training configuration of every job, before any runs."""
    from dkl.build import preflight

    configs = []
    for job in jobs:
        try:
            configs.append(compose_config("train", job.train))
            preflight(configs[-1])
        except (HydraException, OmegaConfBaseException) as error:
            raise explain("train", error) from None
    return configs


def _run(job: Job, cfg: DictConfig) -> Path:
    """Train and evaluate one job; returns its record's path."""
    from dkl.evaluation import evaluate
    from dkl.training import train

    folder = train(cfg)
    paths = [f"paths.{key}={value}" for key, value in cfg.paths.items()]
    return evaluate(compose_config("evaluate", [f"run='{folder}'", *paths, *job.evaluate]))


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
    jobs = plan(own["experiment"], seeds=own["seed"], budget=own["budget"], row=own["row"], extra=extra)
    configs = _prepare(jobs)
    for number, (job, cfg) in enumerate(zip(jobs, configs, strict=True), 1):
        say(f"{number}/{len(jobs)}  {job.label} seed {job.seed}  {run_folder(cfg)}")
        if own["dry_run"]:
            print(job.commands())
    if own["dry_run"]:
        return
    started, failures = time.monotonic(), []
    for job, cfg in zip(jobs, configs, strict=True):
        try:
            _run(job, cfg)
        except UserError as error:
            failures.append(f"{job.label} seed {job.seed}: {error}")
            say(f"failed: {failures[-1]}")
    minutes = (time.monotonic() - started) / 60
    say(f"{len(jobs) - len(failures)} of {len(jobs)} rows done in {minutes:.1f} min")
    if len(failures) < len(jobs):
        _tabulate(Path(configs[0].paths.results))
    for failure in failures:
        say(f"failed: {failure}")
    if failures:
        raise SystemExit(1)
    say(manifest(own["experiment"]).get("next", "Next: dkl train --help lists what else there is"))
