"""Run jobs: one after the other next to other processes, or through a Hydra launcher such as joblib or submitit."""

import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dkl.config import ComposedRun, shipped
from dkl.config.overrides import submitit_logs
from dkl.console import say
from dkl.errors import BusyError, UserError, first_line
from dkl.manifests import ManifestJob
from dkl.options import default_results
from dkl.reporting.grouping import group
from dkl.reproduction.planning import Options, PlannedJob, parse, plan_jobs
from dkl.runtime import adopt_tasks
from dkl.runtime.device import take_turn
from dkl.runtime.distributed import from_first, world
from dkl.runtime.interruption import Interrupted, interruptible, launching, worker
from dkl.storage.files import is_locked, write_text

FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""Seconds to wait if other processes hold the locks of all remaining jobs. The wait doubles each time."""


def run_jobs(
    jobs: Sequence[PlannedJob], failures: dict[str, str], after_each: Callable[[], None] = lambda: None
) -> None:
    """Run the jobs that are not done and add those that fail to ``failures`` (title -> reason).

    Several commands may work on one results folder, on machines that share it. No command keeps a list of who runs
    what: each run's lock file is the only agreement. A job whose lock is held is put back and tried again later, so a
    command ends only when all its jobs are done or failed, by any process. ``after_each`` is called after each job.
    """
    # Processes that torchrun has started follow the first one, also if it alone sees the results folder.
    names = from_first([planned.title for planned in jobs if not planned.done and planned.title not in failures])
    left = [planned for planned in jobs if planned.title in names]
    done = len(jobs) - len(left)
    reported: set[str] = set()
    wait = FIRST_WAIT
    while left:
        postponed: list[PlannedJob] = []
        for planned in left:
            teacher = planned.job.teacher
            if teacher in {other.title for other in postponed}:  # a student needs its teacher's weights first
                postponed.append(planned)
                continue
            try:
                reason = f"its {teacher} failed" if teacher in failures else _attempt(planned)
            except BusyError as busy:
                if planned.title not in reported:
                    say(f"{planned.title}: {busy}")
                reported.add(planned.title)
                postponed.append(planned)
                continue
            except Interrupted as stop:
                stop.place = f"in {planned.title}{stop.place and ' '}{stop.place}, {done} of {len(jobs)} runs done"
                raise
            done += not reason
            if reason:
                failures[planned.title] = reason
                say(f"failed: {planned.title}: {reason}")
            after_each()
        blocked = len(postponed) == len(left)
        if blocked:
            time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT) if blocked else FIRST_WAIT
        left = postponed


def _attempt(planned: PlannedJob) -> str | None:
    """Run one job; return the reason if it fails. Raises BusyError if another process holds its lock.

    Errors that are not the user's keep their traceback in ``error.log`` in the run's folder; it is printed if that file
    cannot be written.
    """
    folder = planned.run.folder
    log = folder / "error.log"
    # Training takes the lock itself, but only after it has loaded its images. Looking first is cheaper.
    if from_first(is_locked(folder / ".lock")):
        raise BusyError(f"another process is training {folder}; wait for it, or stop it first")
    try:
        with interruptible():  # a signal is no failure of the row, whatever exception a library makes of it
            _train_and_evaluate(planned.job, planned.run)
    except BusyError:
        raise
    except UserError as error:
        if world() > 1:  # the other processes may wait for this one: torchrun ends them
            raise
        return str(error)
    except Exception as error:  # one broken row must not end the others
        if world() > 1:
            raise
        reason, text = f"{type(error).__name__}: {first_line(error)}", traceback.format_exc()
        try:
            write_text(log, text)
        except (OSError, UserError):  # a full disk may be the very reason
            say(text)
            return reason
        return f"{reason} (see {log})"
    log.unlink(missing_ok=True)
    return None


def _train_and_evaluate(job: ManifestJob, run: ComposedRun) -> None:
    from dkl.assembly import train
    from dkl.evaluation import evaluate

    train(run.cfg)
    for overrides in job.evaluations:
        evaluate(run.evaluation(overrides))


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


def _sweep(options: Options, jobs: Sequence[ManifestJob]) -> None:
    """One Hydra sweep over the arguments of ``jobs``."""
    say(f"{len(jobs)} jobs through {options.launcher[0]}: {', '.join(job.title for job in jobs)}")
    if logs := submitit_logs(options.launcher, f"{default_results()}/runs"):
        say(f"logs: {logs}")
    budget = [f"budget={options.request.budget}"] if options.request.budget else []
    shared = [f"experiment={options.name}", *budget, *options.request.overrides]
    commands = [shlex.join([*shared, f"row={job.name}", f"seed={job.seed}"]) for job in jobs]
    # Each command is one quoted value of a single key: Hydra would otherwise split it at commas and equals signs.
    choices = ",".join("'" + command.replace("\\", r"\\").replace("'", r"\'") + "'" for command in commands)
    here = Path.cwd()
    sys.argv = ["dkl reproduce", "-m", *options.launcher, f"command={choices}"]

    @hydra.main(config_path=str(Path(shipped("configs"))), config_name="reproduce", version_base="1.3")
    def application(cfg: DictConfig) -> None:
        os.chdir(here)  # paths are relative to the command's folder; a reused process may be in another
        with worker():
            adopt_tasks()
            take_turn(HydraConfig.get().job.num)
            failures: dict[str, str] = {}
            run_jobs(plan_jobs(parse(shlex.split(cfg.command))), failures)
            if failures:
                raise UserError("; ".join(f"{title}: {reason}" for title, reason in failures.items()))

    try:
        with launching():
            application()
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:  # Hydra runs all jobs, then raises the error of the first that failed
        say(f"a job failed: {first_line(error)}")
