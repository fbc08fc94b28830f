"""Jobs of a manifest run one after the other, beside other processes that run them too."""

import time
import traceback
from collections.abc import Sequence
from contextlib import suppress

from omegaconf import DictConfig

from dkl.config import compose_config, run_folder
from dkl.console import say
from dkl.errors import BusyError, UserError
from dkl.files import is_locked, write_text
from dkl.manifests import ManifestJob
from dkl.reproduction.options import parse
from dkl.reproduction.planning import PlannedJob, find_tasks

PATIENCE, LONGEST = 2.0, 60.0
"""Seconds between looks at jobs that other processes have taken, the first time and in the end."""


def evaluation_of(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of ``dkl evaluate`` for the run of ``cfg``."""
    paths = [f"paths.{key}={value}" for key, value in cfg.paths.items()]
    device = [f"device={cfg.trainer.device}", f"devices={cfg.trainer.devices}"]
    return compose_config("evaluate", [f"run='{run_folder(cfg)}'", *paths, *device, *overrides])


def _run(job: ManifestJob, cfg: DictConfig) -> None:
    """Train one job and make its evaluations."""
    from dkl.assembly import train
    from dkl.evaluation import evaluate

    train(cfg)
    for overrides in job.evaluations:
        evaluate(evaluation_of(cfg, overrides))


def _attempt(job: ManifestJob, cfg: DictConfig) -> str | None:
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


def work(tasks: Sequence[PlannedJob], failures: dict[str, str]) -> None:
    """Run what is to do; jobs that other processes have taken, and their students, are waited for."""
    left = [task for task in tasks if not task.standing.done and task.job.title not in failures]
    said: set[str] = set()
    patience = PATIENCE
    while left:
        later: list[PlannedJob] = []
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


def one(arguments: list[str]) -> None:
    """What ``arguments`` name, in a process of a launcher: no plan, no tables. Raises UserError where a job failed."""
    failures: dict[str, str] = {}
    work(find_tasks(parse(arguments)), failures)
    if failures:
        raise UserError("; ".join(f"{title}: {why}" for title, why in failures.items()))
