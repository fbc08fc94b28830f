"""The plan of ``dkl reproduce``: every job with its configuration, how far it is, how long it takes, what it lacks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config import run_folder
from dkl.config.choices import choices
from dkl.config.overrides import explain
from dkl.console import say
from dkl.errors import NotInstalledError, UserError
from dkl.manifests import Manifest, ManifestJob, load, plan
from dkl.manifests.jobs import Composer
from dkl.records import load_all
from dkl.reporting.grouping import group
from dkl.reproduction.options import Options
from dkl.reproduction.progress import JobProgress, standing


class PlannedJob(NamedTuple):
    """A job, its configuration, how far it is, and which library it lacks, if any."""

    job: ManifestJob
    cfg: DictConfig
    standing: JobProgress
    lacks: str | None = None


def _untrained(cfg: DictConfig) -> DictConfig:
    """``cfg`` with a network fresh from its box in the place of a teacher that is still to be trained."""
    cfg = cfg.copy()
    asked = OmegaConf.to_container(cfg.task.teacher, resolve=True)
    assert isinstance(asked, dict)
    network = {key: asked[key] for key in ("name", "num_classes", "in_chans", "mean", "std")}
    OmegaConf.update(cfg, "task.teacher", {"_target_": "dkl.models.create_model", **network}, merge=False)
    return cfg


def find_tasks(options: Options) -> list[PlannedJob]:
    """Every job with its checked configuration, before any runs; seeds of a row are checked once."""
    compose, jobs = Composer(), list[tuple[ManifestJob, DictConfig, str | None]]()
    checked: dict[tuple[str, ...], str | None] = {}
    try:
        for job in plan(options.name, options.request, compose):
            cfg = compose(job.train)
            row = tuple(text for text in job.train if not text.startswith("seed="))
            if row not in checked:
                checked[row] = _lacks(cfg, job)
            jobs.append((job, cfg, checked[row]))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain("train", error) from None
    found, _ = load_all(Path(jobs[0][1].paths.results) / "records")
    tasks = [PlannedJob(job, cfg, standing(job, cfg, found), lacks) for job, cfg, lacks in jobs]
    wanted = {task.job.teacher for task in tasks if not task.standing.done}
    return [
        task._replace(standing=replace(task.standing, wanted=True)) if task.job.title in wanted else task
        for task in tasks
    ]


def _lacks(cfg: DictConfig, job: ManifestJob) -> str | None:
    """Check the configuration of ``job``; what it would need to have installed. Raises UserError where it is wrong."""
    from dkl.assembly import preflight

    fetched = OmegaConf.select(cfg, "task.teacher.pretrained")  # when its turn comes
    try:
        preflight(_untrained(cfg) if job.teacher or fetched else cfg)
    except NotInstalledError as error:
        return str(error)
    return None


def say_plan(manifest: Manifest, tasks: Sequence[PlannedJob]) -> None:
    """Say which jobs there are, how far each is, and about how long the rest takes."""
    from dkl.reproduction.estimate import H100, duration, operations, speed

    cfg = tasks[0].cfg
    budget = cfg.budget.name
    say(f"{manifest.title}: {len(tasks)} runs at budget {budget}, into {cfg.paths.results}")
    say(f"  {choices('budget')[budget]}")
    left = [0.0 if task.standing.done else operations(*task[:3]) for task in tasks]
    rate, where = (H100, "one H100 (assumed speed)") if budget == "paper" else (0.0, "this machine")
    if any(left) and not rate:
        rate = speed(max(zip(left, tasks, strict=True), key=lambda pair: pair[0])[1].cfg)
    for number, (task, cost) in enumerate(zip(tasks, left, strict=True), 1):
        about = f", about {duration(cost / rate)}" if cost else ""
        say(f"  {number}/{len(tasks)}  {task.job.title}: {task.standing}{about}  {run_folder(task.cfg)}")
    if any(left):
        say(f"  left: about {duration(sum(left) / rate)} on {where}; an estimate, right to a factor of two or so")


def refuse_paper_on_cpu(options: Options, tasks: Sequence[PlannedJob]) -> None:
    """Raise UserError where the paper's size would run on a CPU and nobody said that it should."""
    from dkl.assembly import pick_device
    from dkl.reproduction.estimate import H100, duration, operations

    cfg = tasks[0].cfg
    if cfg.budget.name != "paper" or all(task.standing.done for task in tasks):
        return
    if cfg.trainer.device != "auto" or pick_device("auto").type != "cpu" or options.launcher:
        return
    left = duration(sum(operations(*task[:3]) for task in tasks if not task.standing.done) / H100)
    request, option = options.request, load(options.name).option
    row = f" row={request.row}" if request.row else ""
    seeds = f" seed={','.join(map(str, request.seeds))}" if request.seeds else ""
    command = f"dkl reproduce {option}{row}{seeds}"
    raise UserError(
        f"budget=paper is for GPUs, and there is none here: about {left} on one H100. Instead: {command} budget=mini "
        f"(cut down to what a CPU can do), or {command} budget=smoke (seconds, to see that it runs); "
        "trainer.device=cpu insists"
    )


def find_impossible(tasks: Sequence[PlannedJob]) -> dict[str, str]:
    """Jobs whose images or libraries are not here, and why: said before the others start, not weeks later."""
    found: dict[str, str] = {}
    known: dict[str, str | None] = {}
    for job, cfg, how_far, lacks in tasks:
        if how_far.done:
            continue
        key = OmegaConf.to_yaml(cfg.data, resolve=True)
        if key not in known:
            known[key] = _missing_images(cfg)
        if why := lacks or known[key]:
            found[job.title] = why
    for why, titles in group(found, found.__getitem__).items():
        say(f"cannot run {', '.join(titles)}: {why}")
    return found


def _missing_images(cfg: DictConfig) -> str | None:
    """Why the images of ``cfg`` cannot be had, if they cannot."""
    from dkl.assembly import load_data, load_synthetic

    try:
        load_synthetic(cfg.data)
        load_data(cfg.data)
    except UserError as error:
        return str(error)
    return None
