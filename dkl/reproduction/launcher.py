"""Run jobs through a Hydra launcher: joblib on one machine, submitit on a SLURM cluster."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dkl.config import shipped
from dkl.config.overrides import submitit_logs
from dkl.console import say
from dkl.errors import first_line
from dkl.manifests import ManifestJob
from dkl.reporting.grouping import group
from dkl.reproduction.options import Options
from dkl.reproduction.planning import PlannedJob, plan_jobs
from dkl.runtime.interruption import Interrupted, launching, worker


def launch(options: Options, jobs: Sequence[PlannedJob], failed: Sequence[str]) -> None:
    """Run the ``jobs`` that are neither done nor ``failed`` (titles) with the launcher, and wait for them.

    Every command runs alone and trains the teacher of its row if that is missing. If all students started at once,
    each would wait for the one that trains the teacher and occupy a node meanwhile. So there are two sweeps: first one
    student per untrained teacher, then the other jobs, without students of teachers that failed. Failed jobs report the
    reason in their own log; the others continue.
    """
    to_do = [planned.job for planned in jobs if not planned.done and planned.title not in failed]
    students = group((planned.job for planned in jobs if planned.job.teacher), lambda job: job.teacher)
    first = []
    for teacher in (job for job in to_do if job.title in students):
        own = students[teacher.title]
        first.append(next((job for job in own if job in to_do), own[0]))
    if first:
        _sweep(options, first)
    untrained = {planned.title for planned in plan_jobs(options) if not planned.done} if first else set()
    rest = [job for job in to_do if job.title not in students and job not in first and job.teacher not in untrained]
    if rest:
        _sweep(options, rest)


def _arguments(options: Options, job: ManifestJob) -> str:
    """The arguments of ``dkl reproduce`` that select ``job`` alone."""
    request = options.request
    budget = [f"budget={request.budget}"] if request.budget else []
    return shlex.join(
        [f"experiment={options.name}", *budget, *request.overrides, f"row={job.name}", f"seed={job.seed}"]
    )


def _sweep(options: Options, jobs: Sequence[ManifestJob]) -> None:
    """One Hydra sweep over the arguments of ``jobs``."""
    say(f"{len(jobs)} jobs through {options.launcher[0]}: {', '.join(job.title for job in jobs)}")
    if logs := submitit_logs(options.launcher, f"{os.environ.get('DKL_RESULTS_DIR', 'results')}/runs"):
        say(f"logs: {logs}")
    # Each command is one quoted value of a single key: Hydra would otherwise split it at commas and equals signs.
    commands = [_arguments(options, job).replace("\\", r"\\").replace("'", r"\'") for job in jobs]
    choices = ",".join(f"'{command}'" for command in commands)
    here = Path.cwd()
    sys.argv = ["dkl reproduce", "-m", *options.launcher, f"command={choices}"]

    @hydra.main(config_path=str(Path(shipped("configs"))), config_name="reproduce", version_base="1.3")
    def application(cfg: DictConfig) -> None:
        # Launchers pickle this function and run it in processes that have not imported the package.
        from dkl.reproduction.worker import run_arguments
        from dkl.runtime.device import take_turn
        from dkl.runtime.distributed import adopt_tasks

        os.chdir(here)  # paths are relative to the command's folder; a reused process may be in another
        with worker():
            adopt_tasks()
            take_turn(HydraConfig.get().job.num)
            run_arguments(shlex.split(cfg.command))

    try:
        with launching():
            application()
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:  # Hydra runs all jobs, then raises the error of the first that failed
        say(f"a job failed: {first_line(error)}")
