"""Manifests: experiments and tables of the paper as data, and the jobs they stand for.

A manifest (``experiments/NAME.yaml``) has a ``title``, common ``overrides`` of ``dkl train``, ``sizes`` that hold where
no ``budget`` is given, ``evaluate`` (overrides of ``dkl evaluate``, or a list of such lists: one evaluation each),
``seeds``, a line on what to do ``next``, and ``rows``, each with a ``label`` (the method's name in tables), its own
``overrides``, and a ``name`` where labels do not tell the rows apart.

``teachers`` maps names to overrides, and a row's ``teacher`` names one of them. Each that a row needs is one job at
seed 0 before the first such row, which then gets ``task.teacher.name`` and the folder of that run. Where the command
says ``task.teacher.checkpoint=FILE`` or ``task.teacher.run=FOLDER``, that is the teacher and none is trained.
"""

import re
import shlex
from dataclasses import dataclass

from omegaconf import DictConfig, ListConfig, OmegaConf

from dkl.cli.help import choices
from dkl.config import compose_config, run_folder, shipped
from dkl.errors import UserError

TEACHER = "task.teacher."
SHARED = ("data", "trainer", "paths", "logger", "budget")
"""Groups of a command's own overrides that hold for teachers too: sizes and places, not what a student is."""


@dataclass(frozen=True)
class Job:
    """One row at one seed: its overrides of ``dkl train``, and those of each ``dkl evaluate``."""

    name: str
    label: str
    seed: int
    train: list[str]
    evaluations: list[list[str]]

    @property
    def title(self) -> str:
        """Row and seed."""
        return f"{self.name} seed {self.seed}"

    def commands(self, run: str) -> str:
        """The plain commands this job stands for; ``run`` is the folder that training fills."""
        train = ["dkl", "train", *self.train]
        evaluate = [["dkl", "evaluate", f"run={run}", *overrides] for overrides in self.evaluations]
        return "\n".join(shlex.join(command) for command in [train, *evaluate])


def manifest(name: str) -> DictConfig:
    """The manifest ``name``. Raises UserError where there is none."""
    path = shipped("experiments") / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no experiment {name!r}; there are {', '.join(choices('experiments'))}")
    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    return content


def _evaluations(entry: ListConfig) -> list[list[str]]:
    """One list of overrides an evaluation, from one list or a list of them."""
    nested = bool(entry) and isinstance(entry[0], ListConfig)
    return [list(overrides) for overrides in entry] if nested else [list(entry)]


def plan(name: str, *, seeds: list[int] | None, budget: str | None, row: str | None, extra: list[str]) -> list[Job]:
    """The jobs of a manifest, in order, each row's teacher before it.

    Raises UserError on an unknown experiment or row, and on one teacher given for rows with several.
    """
    found = manifest(name)
    names = [entry.get("name", entry.label) for entry in found.rows]
    if row is not None and row not in names:
        raise UserError(f"{name} has no row {row!r}; it has {', '.join(names)}")
    chosen = [entry for entry, entry_name in zip(found.rows, names, strict=True) if row in (None, entry_name)]
    common = [*found.overrides, *([f"budget={budget}"] if budget else found.get("sizes", []))]
    students = [text for text in extra if not text.startswith(TEACHER)]
    teachers = _teachers(found, chosen, common, extra)
    evaluations, jobs = _evaluations(found.evaluate), list[Job]()
    for entry in chosen:
        job, given = teachers.get(entry.get("teacher"), (None, []))
        if job is not None and job not in jobs:
            jobs.append(job)
        for seed in seeds or found.seeds:
            own = [*common, *entry.overrides, *given, f"label={entry.label}", f"seed={seed}", *students]
            jobs.append(Job(entry.get("name", entry.label), entry.label, seed, _later_wins(own), evaluations))
    return jobs


def _teachers(
    found: DictConfig, chosen: list[DictConfig], common: list[str], extra: list[str]
) -> dict[str, tuple[Job | None, list[str]]]:
    """Of each teacher that ``chosen`` rows name: the job that trains it, and what its students are given."""
    needed = list(dict.fromkeys(entry.teacher for entry in chosen if entry.get("teacher")))
    told = [text for text in extra if text.startswith(TEACHER)]
    given = [text for text in told if text.partition("=")[0] in (f"{TEACHER}checkpoint", f"{TEACHER}run")]
    if given and len(needed) > 1:
        raise UserError(f"{given[0]} is one teacher, and these rows have {', '.join(needed)}: choose one with row=NAME")
    shared = [text for text in extra if re.split(r"[.=]", text.lstrip("+~"))[0] in SHARED]
    jobs: dict[str, tuple[Job | None, list[str]]] = {}
    for name in needed:
        train = _later_wins([*common, *found.teachers[name], "label=Teacher", "seed=0", *shared])
        cfg = compose_config("train", train)
        job = None if given else Job(f"teacher {name}", "Teacher", 0, train, _evaluations(found.evaluate))
        run = [] if given else [f"{TEACHER}run={_quoted(str(run_folder(cfg)))}"]
        jobs[name] = (job, [f"{TEACHER}name={cfg.model.name}", *run, *told])
    return jobs


def _quoted(text: str) -> str:
    """``text`` as Hydra reads it back."""
    return text if re.fullmatch(r"[\w./-]+", text) else "'" + text.replace("'", r"\'") + "'"


def _later_wins(overrides: list[str]) -> list[str]:
    """``overrides`` with one value a key, the last one given: Hydra takes no choice of a group twice."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
