"""The last lines of a command: the next command and, after a sweep, a table of its runs.

Launchers run the jobs of a sweep in other processes, also on other machines, and return numbers only. So every job adds
a line to one file in the results folder, which the command reads at the end and deletes.
"""

import json
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dkl.config.overrides import last_value, quoted, submitit_logs
from dkl.console import say
from dkl.options import default_results

MANY = 8
"""Up to this many runs of a sweep are named in the next command."""


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
        # Jobs end in any order.
        return sorted((Job(**json.loads(line)) for line in lines), key=lambda job: job.overrides)


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
            place = _relative(Path(best.path))
            say(f"best of {len(jobs)}: {point}  value {best.value:.4f}  {place}")
        if paths := [Path(path) for path in dict.fromkeys(job.path for job in jobs) if path]:
            say(f"Next: {following(paths)}")


def results_folder(overrides: Sequence[str]) -> Path:
    """Return the results folder of a command with ``overrides``."""
    return Path(last_value(overrides, "paths.results", default_results()))


def evaluate_next(paths: Sequence[Path], overrides: Sequence[str]) -> str:
    """Return the command that evaluates the runs in the folders ``paths``, trained with ``overrides``."""
    chosen = paths[: 1 if len(paths) > MANY else None]
    runs = ",".join(quoted(str(_relative(path))) for path in chosen)
    folders = [text for text in overrides if text.startswith(("paths.results=", "paths.data="))]
    return shlex.join(["dkl", "evaluate", *(["-m"] if len(chosen) > 1 else []), f"run={runs}", *folders])


def tables_next(paths: Sequence[Path], overrides: Sequence[str]) -> str:
    """Return the command that makes the tables of the records ``paths``, evaluated with ``overrides``."""
    from dkl.records import load

    given = any(text.startswith("paths.results=") for text in overrides)
    results = [f"results={results_folder(overrides)}"] if given else []
    smoke = ["smoke=true"] if any(load(path).budget == "smoke" for path in paths) else []
    return shlex.join(["dkl", "tables", *results, *smoke])


def _table(jobs: Sequence[Job]) -> str:
    """Return one row per job: the overrides in which the jobs differ, and the result."""
    from dkl.reporting.formats.plain import to_plain
    from dkl.reporting.formats.text_table import TextTable

    keys = _different_keys(jobs)
    rows: list[tuple[list[str], dict[str, str]]] = []
    for job in jobs:
        given = dict(text.partition("=")[::2] for text in job.overrides)
        values = _outcome(Path(job.path)) if job.path else {"result": f"failed: {job.error}"}
        rows.append(([given.get(key, "") for key in keys], values))
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    cells = tuple((*given, *(values.get(name, "") for name in names)) for given, values in rows)
    header = (*keys, *names)
    return to_plain(TextTable(title="Sweep", header=header, rows=cells, alignments="l" * len(header))).rstrip("\n")


def _outcome(path: Path) -> dict[str, str]:
    """Return the results of a run's folder or of a record, by column."""
    from dkl.records import load
    from dkl.reporting.runs import read_run

    if path.is_dir():
        run = read_run(path, [])
        columns = {"epochs": run.epochs, "test (%)": run.test, "robust (%)": run.robust, "run": run.name}
    else:
        record = load(path)
        robust = "" if record.robust is None else f"{100 * record.robust:.2f}"
        columns = {"clean (%)": f"{100 * record.clean:.2f}", "robust (%)": robust, "record": record.id}
    return {name: value for name, value in columns.items() if value}


def _different_keys(jobs: Sequence[Job]) -> list[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for text in job.overrides:
            key, _, value = text.partition("=")
            values.setdefault(key, set()).add(value)
    return [key for key, different in values.items() if len(different) > 1]


def _relative(path: Path) -> Path:
    """Return ``path`` as seen from the working directory if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
