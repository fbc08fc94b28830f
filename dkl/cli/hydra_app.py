"""Run a function as a Hydra application."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser  # the flags of Hydra, which has no public list of them
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dkl.cli.ends import Job, Sweep, sweep
from dkl.cli.jobs import compose_checked, jobs, without_repeats
from dkl.config import register, shipped
from dkl.config.overrides import read_overrides
from dkl.console import say
from dkl.errors import UserError, first_line, for_the_terminal, line_of
from dkl.runtime.interruption import launching, worker

SHELLS = ("bash", "zsh", "fish")
"""Shells that Hydra completes in."""

MAXIMIZE = "hydra.sweeper.direction=maximize"


def _parse_flags(root: str, arguments: list[str]) -> argparse.Namespace:
    """Parse the flags of Hydra; ``overrides`` are the other arguments. Raises UserError on an unknown flag."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        given, rest = parser.parse_known_intermixed_args(arguments)
    except (argparse.ArgumentError, TypeError) as error:
        raise UserError(f"{first_line(error)}; dkl {root} --hydra-help lists the flags") from None
    if rest:
        raise UserError(f"there is no flag {rest[0]!r}; dkl {root} --help lists the keys, --hydra-help the flags")
    if given.config_name or given.config_path or given.config_dir:
        raise UserError(
            "--config-name, --config-path and --config-dir are not for dkl: add your own choices by "
            "hydra.searchpath=[file:///FOLDER/WITH/CONFIGS]"
        )
    if stray := next((text for text in given.overrides if "=" not in text and not text.startswith("~")), None):
        raise UserError(f"{stray!r} is not KEY=VALUE; dkl {root} --help lists the keys")
    return given


def _check_multirun(given: argparse.Namespace) -> None:
    """Raise UserError if overrides list several values, but the flag -m is missing."""
    if not given.multirun and any(override.is_sweep_override() for override in read_overrides(given.overrides)):
        raise UserError("a list of values is a sweep of several jobs: add -m")


def _direction(overrides: list[str]) -> list[str]:
    """The direction of a search, if none is given: values are accuracies, and the sweeper minimizes by default."""
    searches = any(text.startswith("hydra/sweeper=optuna") for text in overrides)
    return [MAXIMIZE] if searches and not any("hydra.sweeper.direction=" in text for text in overrides) else []


def _task_overrides() -> list[str]:
    """Return the overrides of the job that runs in this process."""
    return list(HydraConfig.get().overrides.task)


def _take_turn() -> None:
    """Spread the jobs that a launcher runs at the same time on this machine over its accelerators."""
    from dkl.runtime.device import take_turn

    job = HydraConfig.get().job
    if not OmegaConf.is_missing(job, "num"):  # it is, outside a sweep
        take_turn(job.num)


def complete(root: str, arguments: list[str]) -> None:
    """Let Hydra install its tab completion in a shell, or answer it: ``arguments`` are such as ``-sc install=bash``."""
    asked = [text.partition("=") for text in arguments if not text.startswith("-")]
    if len(asked) != 1 or asked[0][0] not in ("install", "uninstall", "query") or asked[0][2] not in SHELLS:
        raise UserError(f"-sc needs install=SHELL or uninstall=SHELL, SHELL one of {', '.join(SHELLS)}")
    register()
    sys.argv = ["dkl", *arguments]  # the shell completes the arguments of this program
    hydra.main(config_path=str(Path(shipped("configs"))), config_name=root, version_base="1.3")(lambda cfg: None)()


def run(
    root: str,
    arguments: list[str],
    check: Callable[[DictConfig], None],
    job: Callable[[DictConfig], Path],
    following: Callable[[Sequence[Path], Sequence[str]], str],
    value: Callable[[Path], float | None] = lambda path: None,
) -> None:
    """Check every job, then run Hydra with ``arguments``, which followed ``dkl <root>``.

    ``job`` returns what it made: a run's folder, or a record. ``following`` returns the next command from what all jobs
    made, and the overrides. A sweeper that searches gets the ``value`` of what a job made, or None (a failed trial) if
    the job raises UserError.
    """
    given = _parse_flags(root, arguments)
    if given.shell_completion:
        complete(root, arguments)
        return
    overrides = without_repeats(given.overrides)
    compose_checked(root, overrides, check)
    _check_multirun(given)
    register()
    flags = list(arguments)
    for text in given.overrides:
        flags.remove(text)
    sys.argv = [f"dkl {root}", *flags, *overrides, *_direction(overrides)]  # Hydra takes no flags between overrides
    count = len(jobs(overrides))
    collected = sweep(overrides, count, lambda paths: following(paths, overrides)) if given.multirun else nullcontext()
    with collected as found:
        application = _Application(job, lambda path: following([path], overrides), value, found)
        decorate = hydra.main(config_path=str(Path(shipped("configs"))), config_name=root, version_base="1.3")
        with launching():
            decorate(lambda cfg: application(cfg))()  # a function: Hydra reads its module and name
        failed = application.failed or (found is not None and any(each.error for each in found.jobs()))
    if failed:
        raise SystemExit(2)


@dataclass
class _Application:
    """What Hydra calls once per job. A launcher sends it to other processes, whose copies of ``failed`` are lost.

    The arguments are those of ``run``, and ``found`` collects the jobs of a sweep; None without a sweep.
    """

    job: Callable[[DictConfig], Path]
    following: Callable[[Path], str]
    value: Callable[[Path], float | None]
    found: Sweep | None
    failed: bool = False

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run one job; return its value. An error is printed here, so that the other jobs of a sweep continue."""
        try:
            with worker():  # a launcher may have started this process
                from dkl.runtime.distributed import adopt_tasks  # here: it imports torch, which takes a second

                adopt_tasks()
                _take_turn()
                made = self.job(cfg)
            reached = self.value(made)
            if not int(os.environ.get("RANK", 0)):  # the first of several tasks reports what they made
                self._report(made, reached)
            return reached
        except (UserError, OSError) as error:
            print(for_the_terminal(error), file=sys.stderr)
            self.failed = True
            if self.found is not None:
                self.found.add(Job(_task_overrides(), error=line_of(error)))
            return None

    def _report(self, made: Path, reached: float | None) -> None:
        if self.found is None:
            say(f"Next: {self.following(made)}")
        else:
            self.found.add(Job(_task_overrides(), str(made.absolute()), reached))
