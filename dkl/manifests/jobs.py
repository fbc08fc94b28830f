"""The runs a manifest stands for: one job a row and seed, each row's teacher before it.

A row's ``teacher`` is trained once, at seed 0; the row then gets ``task.teacher.name`` and the folder of that run.
Where the command says ``task.teacher.checkpoint=FILE`` or ``task.teacher.run=FOLDER``, that is the teacher and none is
trained. At budget smoke the first seed is enough.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from omegaconf import DictConfig

from dkl.config import compose_config, hashed, model_name, row_identity, run_folder
from dkl.errors import UserError
from dkl.manifests.manifest import Manifest, ManifestRow, load

TEACHER = "task.teacher."
SHARED = ("data", "trainer", "paths", "logger", "budget")
"""Groups of a command's own overrides that hold for teachers too: sizes and places, not what a student is."""

WHERE = re.compile(r"paths\.|trainer\.devices?=")
"""Overrides of training that its evaluations have too, under ``trainer`` or without it."""


@dataclass(frozen=True)
class ManifestJob:
    """One row at one seed: its overrides of ``dkl train``, and those of each ``dkl evaluate``.

    ``teacher`` is the title of the job that must be done before.
    """

    name: str
    label: str
    seed: int
    train: tuple[str, ...]
    evaluations: tuple[tuple[str, ...], ...]
    teacher: str | None = None

    @property
    def title(self) -> str:
        """Row and seed."""
        return f"{self.name} seed {self.seed}"

    def commands(self, run: str) -> str:
        """The plain commands this job stands for; ``run`` is the folder that training fills."""
        train = ["dkl", "train", *self.train]
        where = [text.removeprefix("trainer.") for text in self.train if WHERE.match(text)]
        evaluate = [["dkl", "evaluate", f"run={run}", *overrides, *where] for overrides in self.evaluations]
        return "\n".join(shlex.join(command) for command in [train, *evaluate])


@dataclass(frozen=True)
class Request:
    """What of a manifest is asked for; None is all, its own seeds, or its own sizes. ``extra`` go to ``dkl train``."""

    seeds: tuple[int, ...] | None = None
    budget: str | None = None
    row: str | None = None
    extra: tuple[str, ...] = field(default=())


class Composer:
    """Composes training configurations, one a row: those of its seeds are copies."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Iterable[str]) -> DictConfig:
        """The configuration of ``overrides``, the seed among them."""
        seeds = [text for text in overrides if text.startswith("seed=")]
        rest = tuple(text for text in overrides if not text.startswith("seed="))
        if rest not in self._known:
            self._known[rest] = compose_config("train", list(rest))
        cfg = self._known[rest].copy()
        if seeds:
            cfg.seed = int(seeds[-1].partition("=")[2])
        return cfg


def plan(name: str, request: Request, compose: Composer | None = None) -> list[ManifestJob]:
    """The jobs of the manifest ``name``, in order, each row's teacher before it.

    Raises UserError on an unknown experiment or row, on a table of quoted rows alone, and on one teacher given for rows
    with several.
    """
    found, compose = load(name), compose or Composer()
    rows = _chosen(found, request.row)
    common = _common(found, request.budget)
    students = [text for text in request.extra if not text.startswith(TEACHER)]
    seeds = request.seeds or (found.seeds[:1] if request.budget == "smoke" else found.seeds)
    teachers = _teachers(found, rows, common, request, compose)
    jobs: list[ManifestJob] = []
    for row in rows:
        job, given = teachers[row.teacher] if row.teacher else (None, [])
        if job is not None and job not in jobs:
            jobs.append(job)
        for seed in seeds:
            own = [
                *common,
                *_own(found, row, request.budget),
                *given,
                f"label={_quoted(row.label)}",
                f"seed={seed}",
                *students,
            ]
            needs = job.title if job else None
            jobs.append(ManifestJob(row.name, row.label, seed, _later_wins(own), _evaluations(found, row), needs))
    return jobs


def identities(found: Manifest, budget: str, compose: Composer | None = None) -> dict[str, str]:
    """Of every row that is run, and every teacher: the hash by which a record at ``budget`` is known to be of it."""
    compose, request = compose or Composer(), Request(budget=budget)
    common = _common(found, budget)
    teachers = _teachers(found, list(found.runnable), common, request, compose)
    overrides = {job.name: job.train for job, _ in teachers.values() if job is not None}
    for row in found.runnable:
        _, given = teachers[row.teacher] if row.teacher else (None, [])
        overrides[row.name] = _later_wins([*common, *_own(found, row, budget), *given])
    return {name: row_identity(hashed(compose(own))) for name, own in overrides.items()}


def _chosen(found: Manifest, name: str | None) -> list[ManifestRow]:
    """The rows to run. Raises UserError where there are none."""
    rows = [row for row in found.rows if name in (None, row.name)]
    if not rows:
        raise UserError(f"{found.name} has no row {name!r}; it has {', '.join(row.name for row in found.rows)}")
    runnable = [row for row in rows if row.quoted is None]
    if not runnable:
        raise UserError(
            f"{found.name} {name or ''}: {rows[0].quoted}; its figures stand in the tables".replace(" :", ":")
        )
    return runnable


def _common(found: Manifest, budget: str | None) -> list[str]:
    """Overrides that all rows share at ``budget``."""
    return [*found.overrides, *([f"budget={budget}"] if budget else found.sizes)]


def _own(found: Manifest, row: ManifestRow, budget: str | None) -> list[str]:
    """A row's own overrides, and over them what the manifest adds at ``budget``."""
    return [*row.overrides, *found.at.get(budget or "", ())]


def _evaluations(found: Manifest, row: ManifestRow) -> tuple[tuple[str, ...], ...]:
    return found.evaluations if row.evaluations is None else row.evaluations


def _teachers(
    found: Manifest, rows: list[ManifestRow], common: list[str], request: Request, compose: Composer
) -> dict[str, tuple[ManifestJob | None, list[str]]]:
    """Of each teacher that ``rows`` name: the job that trains it, and what its students are given."""
    needed = list(dict.fromkeys(row.teacher for row in rows if row.teacher))
    told = [text for text in request.extra if text.startswith(TEACHER)]
    given = [text for text in told if text.partition("=")[0] in (f"{TEACHER}checkpoint", f"{TEACHER}run")]
    if given and len(needed) > 1:
        raise UserError(f"{given[0]} is one teacher, and these rows have {', '.join(needed)}: choose one with row=NAME")
    shared = [text for text in request.extra if re.split(r"[.=]", text.lstrip("+~"))[0] in SHARED]
    jobs: dict[str, tuple[ManifestJob | None, list[str]]] = {}
    for name in needed:
        row = found.teachers[name]
        if row.weights and request.budget != "smoke":
            jobs[name] = (None, [*row.weights, *told])
            continue
        train = _later_wins([*common, *_own(found, row, request.budget), "label=Teacher", "seed=0", *shared])
        cfg = compose(train)
        job = None if given else ManifestJob(row.name, "Teacher", 0, train, _evaluations(found, row))
        run = [] if given else [f"{TEACHER}run={_quoted(str(run_folder(cfg)))}"]
        jobs[name] = (job, [f"{TEACHER}name={model_name(cfg.model)}", *run, *told])
    return jobs


def _quoted(text: str) -> str:
    """``text`` as Hydra reads it back."""
    return text if re.fullmatch(r"[\w./ -]+", text) else "'" + text.replace("'", r"\'") + "'"


def _later_wins(overrides: Iterable[str]) -> tuple[str, ...]:
    """``overrides`` with one value a key, the last one given: Hydra takes no choice of a group twice."""
    return tuple({override.partition("=")[0]: override for override in overrides}.values())
