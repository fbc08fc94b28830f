"""Jobs of ``dkl reproduce`` through a launcher of Hydra's: joblib on one machine, submitit on a SLURM cluster."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from os import chdir
from pathlib import Path

import hydra
from omegaconf import DictConfig

from dkl.config import shipped
from dkl.console import say
from dkl.manifests import ManifestJob
from dkl.reporting.grouping import group
from dkl.reproduction.options import Options
from dkl.reproduction.planning import find_tasks


def _commands(options: Options, jobs: Iterable[ManifestJob]) -> list[str]:
    """The arguments of ``dkl reproduce`` for each job."""
    request = options.request
    common = [f"experiment={options.name}", *([f"budget={request.budget}"] if request.budget else []), *request.extra]
    return [shlex.join([*common, f"row={job.name}", f"seed={job.seed}"]) for job in jobs]


def run(options: Options, to_do: Sequence[ManifestJob], planned: Sequence[ManifestJob]) -> None:
    """Have the launcher named by ``options`` run the jobs ``to_do`` of those ``planned``, and wait for them.

    A row's command trains its teacher too: one student of each teacher goes first, the others then find it trained.
    What fails says so in its own log, and stops no other.
    """
    students = group((job for job in planned if job.teacher), lambda job: job.teacher)
    taught = [students[job.title] for job in to_do if job.title in students]
    first = [next((job for job in own if job in to_do), own[0]) for own in taught]
    if first:
        _launch(options, _commands(options, first))
    left = {task.job.title for task in find_tasks(options) if not task.standing.done} if first else set()
    rest = [job for job in to_do if job.title not in students and job not in first and job.teacher not in left]
    if rest:
        _launch(options, _commands(options, rest))


def _launch(options: Options, commands: Sequence[str]) -> None:
    """One Hydra sweep over ``commands``."""
    say(f"{len(commands)} jobs through {options.launcher[0]}")
    choices = ",".join("'" + command.replace("\\", r"\\").replace("'", r"\'") + "'" for command in commands)
    here = Path.cwd()
    sys.argv = ["dkl reproduce", "-m", *options.launcher, f"command={choices}"]

    @hydra.main(config_path=str(Path(shipped("configs"))), config_name="reproduce", version_base="1.3")
    def application(cfg: DictConfig) -> None:
        from dkl.reproduction.worker import one

        chdir(here)  # a process that ran jobs before may be elsewhere
        one(shlex.split(cfg.command))

    try:
        application()
    except (Exception, SystemExit) as error:  # Hydra ends at the first job that failed, after all have run
        say(f"a job failed: {error}")
