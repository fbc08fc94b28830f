"""Run a function as a Hydra application: check its jobs before the first one starts, and report what they have made.

A command ends with the next command and, after a sweep, a table of its runs. Launchers run the jobs of a sweep in other
processes, also on other machines, and return numbers only. So every job adds a line to one file in the results folder,
which the command reads at the end and deletes.
"""

import argparse
import itertools
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser  # the flags of Hydra, which has no public list of them
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config import EvaluateConfig, check_known, register, shipped
from dkl.config import check as check_values
from dkl.config.compose import choices
from dkl.config.overrides import (
    HYDRA_OWN,
    check_hydras_own,
    compose_explained,
    explain,
    last_value,
    read_overrides,
    submitit_logs,
)
from dkl.console import say
from dkl.errors import UserError, choose_from, first_line, for_the_terminal, line_of
from dkl.options import default_results
from dkl.runtime import adopt_tasks
from dkl.runtime.interruption import launching, worker

SHELLS = ("bash", "zsh", "fish")
"""Shells that Hydra completes in."""


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
    if sum(map(bool, (given.run, given.multirun, given.cfg, given.info, given.shell_completion))) > 1:
        raise UserError("give one of -m, --cfg, --info and -sc: a sweep has a configuration per job, which -m trains")
    if given.config_name or given.config_path:
        raise UserError("--config-name and --config-path are not for dkl: add your own choices by --config-dir FOLDER")
    if stray := next((text for text in given.overrides if "=" not in text and not text.startswith("~")), None):
        raise UserError(f"{stray!r} is not KEY=VALUE; dkl {root} --help lists the keys")
    return given


def _prepare(
    root: str, arguments: list[str], given: argparse.Namespace, check: Callable[[DictConfig], None]
) -> list[str]:
    """Check every job and write the command line that Hydra reads; return the overrides. Raises UserError."""
    overrides = without_repeats(given.overrides)
    prints = given.cfg or given.info or given.hydra_help
    check_hydras_own(root, overrides)
    if prints:  # a configuration is printed without torch
        compose_checked(root, overrides, check_values if root == "train" else partial(check_known, root=EvaluateConfig))
    else:
        compose_checked(root, overrides, check)
    if not given.multirun and any(override.is_sweep_override() for override in read_overrides(given.overrides)):
        raise UserError("a list of values is a sweep of several jobs: add -m")
    register()
    flags = list(arguments)
    for text in given.overrides:
        flags.remove(text)
    sys.argv = [f"dkl {root}", *flags, *overrides]  # Hydra takes no flags between overrides
    searches = any(text.startswith("hydra/sweeper=optuna") for text in overrides)
    if searches and not any("hydra.sweeper.direction=" in text for text in overrides):
        sys.argv.append("hydra.sweeper.direction=maximize")  # accuracies; the sweeper minimizes by default
    return overrides


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
    overrides = _prepare(root, arguments, given, check)
    mistakes: list[Exception] = []  # those of this process; a launcher's other processes have copies of the list
    count = len(jobs(overrides))
    collected = sweep(overrides, count, lambda paths: following(paths, overrides)) if given.multirun else nullcontext()

    with collected as found:

        def application(cfg: DictConfig) -> float | None:
            """Run one job; return its value. An error is printed here, so that the other jobs of a sweep continue."""
            try:
                with worker():  # a launcher may have started this process
                    adopt_tasks()
                    if not OmegaConf.is_missing(HydraConfig.get().job, "num"):  # it is, outside a sweep
                        from dkl.runtime.device import take_turn  # needs torch, which takes seconds to import

                        take_turn(HydraConfig.get().job.num)
                    made = job(cfg)
                reached = None if found is None else value(made)
                if not int(os.environ.get("RANK", 0)):  # the first of several tasks reports what they made
                    if found is None:
                        say(f"Next: {following([made], overrides)}")
                    else:
                        found.add(Job(list(HydraConfig.get().overrides.task), str(made.absolute()), reached))
                return reached
            except (UserError, OSError) as error:
                print(for_the_terminal(error), file=sys.stderr)
                mistakes.append(error)
                if found is not None:
                    found.add(Job(list(HydraConfig.get().overrides.task), error=line_of(error)))
                return None

        decorate = hydra.main(config_path=str(Path(shipped("configs"))), config_name=root, version_base="1.3")
        with launching():
            decorate(application)()
        failed = bool(mistakes) or (found is not None and any(ended.error for ended in found.jobs()))
    if failed:
        raise SystemExit(2)


def compose_checked(root: str, overrides: list[str], check: Callable[[DictConfig], object]) -> None:
    """Compose and check every job. Raises UserError on the first one that cannot run."""
    for override in read_overrides(overrides):
        if isinstance(override.value(), IntervalSweep) and not any(o.startswith("hydra/sweeper=") for o in overrides):
            raise UserError(
                f"{override.input_line} is an interval: add -m hydra/sweeper=optuna to search it, or list values"
            )
    for job in jobs(overrides):
        cfg = compose_explained(root, job)
        try:
            check(cfg)
            OmegaConf.to_container(cfg, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(root, error, job) from None


def without_repeats(overrides: list[str]) -> list[str]:
    """``overrides`` in which every list of a sweep has each value once: the same run is one job."""
    kept = []
    for override in read_overrides(overrides):
        values = list(override.sweep_string_iterator()) if isinstance(override.value(), ChoiceSweep) else []
        different = list(dict.fromkeys(values))
        repeats = len(different) < len(values)
        kept.append(f"{override.get_key_element()}={','.join(different)}" if repeats else override.input_line or "")
    return kept


def jobs(overrides: list[str]) -> list[list[str]]:
    """List the overrides of each job of a sweep; without a sweep there is one job."""
    parsed = read_overrides(overrides)
    options = [_choices(override) for override in parsed if not HYDRA_OWN.match(override.input_line or "")]
    return [list(choice) for choice in itertools.product(*options)]


def _choices(override: Override) -> list[str]:
    """The values of ``override`` in a sweep, as plain overrides; an interval is checked at its two ends."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        if value.start is not None and value.end is not None and value.start > value.end:
            raise UserError(f"{override.input_line} is empty: write interval({value.end},{value.start})")
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, Glob):
        known = choices(override.key_or_group)
        if not (matching := value.filter(list(known))):
            fix = choose_from("", known) if known else "glob is for groups; list the values"
            raise UserError(f"{override.input_line} matches nothing: {fix}")
        return [f"{key}={choice}" for choice in matching]
    if override.is_sweep_override():
        return [f"{key}={choice}" for choice in override.sweep_string_iterator()]
    return [override.input_line or ""]


@dataclass(frozen=True)
class Job:
    """A finished job of a sweep: its overrides, its run's folder or record, what a search maximizes, its error."""

    overrides: list[str]
    path: str = ""
    value: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Sweep:
    """The jobs of one sweep. It is sent to the processes of a launcher, so it holds no more than the file's path."""

    file: Path

    def add(self, job: Job) -> None:
        """Add a finished job. Lines of several processes do not mix: each is one write to the end of the file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(job)) + "\n")

    def jobs(self) -> list[Job]:
        """Read the jobs that have finished, sorted by their overrides."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        # Jobs end in any order, and a search may try a point again.
        points = {tuple(job.overrides): job for job in (Job(**json.loads(line)) for line in lines)}
        return [points[overrides] for overrides in sorted(points)]


@contextmanager
def sweep(overrides: Sequence[str], count: int, following: Callable[[list[Path]], str]) -> Iterator[Sweep]:
    """Announce a sweep of ``count`` jobs, collect them, and print their table however the sweep ends.

    ``following`` returns the next command from the runs' folders or records.
    """
    collected = Sweep(results_folder(overrides).absolute() / "runs" / f".sweep-{secrets.token_hex(4)}.jsonl")
    searches = last_value(overrides, "hydra/sweeper", "basic") != "basic"
    if logs := submitit_logs(overrides, f"{results_folder(overrides)}/runs"):
        described = "the jobs of a search" if searches else f"{count} job{'' if count == 1 else 's'}"
        say(f"submitting {described} through {last_value(overrides, 'hydra/launcher', 'basic')}; logs: {logs}")
    try:
        yield collected
    finally:
        jobs = collected.jobs()
        collected.file.unlink(missing_ok=True)
        if jobs:
            say(_table(jobs))
        if searches and (valued := [job for job in jobs if job.value is not None]):
            pick = min if last_value(overrides, "hydra.sweeper.direction", "maximize") == "minimize" else max
            best = pick(valued, key=lambda job: job.value or 0.0)
            keys = _different_keys(jobs)
            point = " ".join(text for text in best.overrides if text.partition("=")[0] in keys)
            place = relative(Path(best.path))
            say(f"best of {len(jobs)}: {point}  value {best.value:.4f}  {place}")
        if paths := [Path(path) for path in dict.fromkeys(job.path for job in jobs) if path]:
            say(f"Next: {following(paths)}")


def results_folder(overrides: Sequence[str]) -> Path:
    """Return the results folder of a command with ``overrides``."""
    return Path(last_value(overrides, "paths.results", default_results()))


def _table(jobs: Sequence[Job]) -> str:
    """Return one row per job: the overrides in which the jobs differ, and the results of its run or record."""
    from dkl.records import load
    from dkl.reporting.boards import plain_percent
    from dkl.reporting.formats import TextTable, to_plain
    from dkl.reporting.runs import read_run

    keys = _different_keys(jobs)
    rows: list[tuple[list[str], dict[str, str]]] = []
    for job in jobs:
        given = dict(text.partition("=")[::2] for text in job.overrides)
        if not job.path:
            values = {"result": f"failed: {job.error}"}
        elif Path(job.path).is_dir():
            run = read_run(Path(job.path), [])
            values = {"epochs": run.epochs, "test (%)": run.test, "robust (%)": run.robust, "run": run.name}
        else:
            record = load(Path(job.path))
            clean, robust = map(plain_percent, (record.clean, record.robust))
            values = {"clean (%)": clean, "robust (%)": robust, "record": record.id}
        values = {name: value for name, value in values.items() if value}
        rows.append(([given.get(key, "") for key in keys], values))
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    cells = tuple((*given, *(values.get(name, "") for name in names)) for given, values in rows)
    header = (*keys, *names)
    return to_plain(TextTable(title="Sweep", header=header, rows=cells, alignments="l" * len(header))).rstrip("\n")


def _different_keys(jobs: Sequence[Job]) -> list[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for text in job.overrides:
            key, _, value = text.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) > 1]


def relative(path: Path) -> Path:
    """Return ``path`` as seen from the working directory if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
