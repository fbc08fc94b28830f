"""The plan of ``dkl reproduce``: every job with its configuration, its progress and what it lacks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config import CachedCompose, ComposedRun, DataConfig
from dkl.config.overrides import explain
from dkl.console import say
from dkl.errors import NotInstalledError, UserError
from dkl.manifests import ManifestJob, plan
from dkl.records import load_all
from dkl.reporting.grouping import group
from dkl.reproduction.options import Options
from dkl.reproduction.progress import JobProgress, progress_of


@dataclass(frozen=True)
class PlannedJob:
    """A job with its configuration and progress; ``missing_library`` is the error if an optional library is missing."""

    job: ManifestJob
    run: ComposedRun
    progress: JobProgress
    missing_library: str | None = None

    @property
    def title(self) -> str:
        """Row and seed."""
        return self.job.title

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.progress.done


def plan_jobs(options: Options) -> list[PlannedJob]:
    """List every job with its checked configuration. Raises UserError if a configuration is wrong."""
    from dkl.assembly import on_launched

    compose = CachedCompose()
    composed: list[tuple[ManifestJob, ComposedRun, str | None]] = []
    checked: dict[tuple[str, ...], str | None] = {}
    try:
        for job in plan(options.name, options.request, compose):
            run = ComposedRun(on_launched(compose(job.train).cfg))
            row = tuple(text for text in job.train if not text.startswith("seed="))
            if row not in checked:  # the check builds the networks: once per row, not per seed
                checked[row] = _check(run, job)
            composed.append((job, run, checked[row]))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain("train", error) from None
    records, _ = load_all(Path(composed[0][1].settings.paths.results) / "records")
    jobs = [PlannedJob(job, run, progress_of(job, run, records), missing) for job, run, missing in composed]
    needed = {planned.job.teacher for planned in jobs if not planned.done}
    return [
        replace(planned, progress=replace(planned.progress, run_needed=True)) if planned.title in needed else planned
        for planned in jobs
    ]


def _check(run: ComposedRun, job: ManifestJob) -> str | None:
    """Check a configuration; return the error if a library is missing. Raises UserError if it is wrong."""
    from dkl.assembly import preflight

    try:
        preflight((run.with_untrained_teacher() if job.teacher or run.downloads_teacher else run).cfg)
    except NotInstalledError as error:
        return str(error)
    return None


def find_blocked(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Titles of the jobs whose images or libraries are missing, with the reason, which is printed.

    It is called before the first job: a table may take weeks, and its last row should not fail then.
    """
    blocked: dict[str, str] = {}
    datasets: dict[str, str | None] = {}
    for planned in (planned for planned in jobs if not planned.done):
        key = OmegaConf.to_yaml(planned.run.cfg.data, resolve=True)
        if key not in datasets:
            datasets[key] = _missing_images(planned.run.settings.data)
        if reason := planned.missing_library or datasets[key]:
            blocked[planned.title] = reason
    for reason, titles in group(blocked, blocked.__getitem__).items():
        say(f"cannot run {', '.join(titles)}: {reason}")
    return blocked


def _missing_images(data: DataConfig) -> str | None:
    """The error if the images of ``data`` cannot be loaded or downloaded."""
    from dkl.assembly import load_data, load_synthetic

    try:
        load_synthetic(data)
        load_data(data)
    except UserError as error:
        return str(error)
    return None
