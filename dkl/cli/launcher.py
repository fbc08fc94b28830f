"""Jobs of ``dkl reproduce`` through a launcher of Hydra's: joblib on one machine, submitit on a SLURM cluster."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from dkl.cli.options import Options
from dkl.config import shipped
from dkl.console import say
from dkl.manifests import Job


def _commands(options: Options, jobs: Sequence[Job]) -> list[str]:
    """The arguments of ``dkl reproduce`` for each job."""
    request = options.request
    common = [f"experiment={options.name}", *([f"budget={request.budget}"] if request.budget else []), *request.extra]
    return [shlex.join([*common, f"row={job.name}", f"seed={job.seed}"]) for job in jobs]


def run(options: Options, jobs: Sequence[Job]) -> None:
    """Have the launcher named by ``options`` run ``jobs``, first those that teach, and wait for them."""
    titles = {job.teacher for job in jobs}
    students = [job for job in jobs if job.title not in titles]
    first = {job.teacher: job for job in students if job.teacher in {other.title for other in jobs}}
    # a row's command trains its teacher too: one student of each teacher goes first, the others then find it trained
    waves = [list(first.values()), [job for job in students if job not in first.values()]]
    for wave in waves:
        if wave:
            _launch(options, _commands(options, wave))


def _launch(options: Options, commands: Sequence[str]) -> None:
    """One Hydra sweep over ``commands``."""
    say(f"{len(commands)} jobs through {options.launcher[0]}")
    choices = ",".join("'" + command.replace("\\", r"\\").replace("'", r"\'") + "'" for command in commands)
    sys.argv = ["dkl reproduce", "-m", *options.launcher, f"command={choices}"]

    @hydra.main(config_path=str(Path(shipped("configs"))), config_name="reproduce", version_base="1.3")
    def application(cfg: DictConfig) -> None:
        from dkl.cli.reproduce import one

        one(shlex.split(cfg.command))

    application()
