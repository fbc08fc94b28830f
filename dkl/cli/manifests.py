"""Manifests: experiments and tables of the paper as data, and the jobs they stand for.

A manifest (``experiments/NAME.yaml``) has a ``title``, common ``overrides`` of ``dkl train``, ``sizes`` that hold where
no ``budget`` is given, ``evaluate`` (overrides of ``dkl evaluate``, or a list of such lists: one evaluation each),
``seeds``, a line on what to do ``next``, and ``rows``, each with a ``label`` (the method's name in tables), its own
``overrides``, and a ``name`` where labels do not tell the rows apart.
"""

import shlex
from dataclasses import dataclass

from omegaconf import DictConfig, ListConfig, OmegaConf

from dkl.cli.help import choices
from dkl.config import shipped
from dkl.errors import UserError


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
    """The jobs of a manifest, in order. Raises UserError on an unknown experiment or row."""
    found = manifest(name)
    names = [entry.get("name", entry.label) for entry in found.rows]
    if row is not None and row not in names:
        raise UserError(f"{name} has no row {row!r}; it has {', '.join(names)}")
    jobs = []
    for entry, entry_name in zip(found.rows, names, strict=True):
        if row not in (None, entry_name):
            continue
        sizes = [f"budget={budget}"] if budget else found.get("sizes", [])
        common = _later_wins([*found.overrides, *sizes, *entry.overrides])
        for seed in seeds or found.seeds:
            train = _later_wins([*common, f"label={entry.label}", f"seed={seed}", *extra])
            jobs.append(Job(entry_name, entry.label, seed, train, _evaluations(found.evaluate)))
    return jobs


def _later_wins(overrides: list[str]) -> list[str]:
    """``overrides`` with one value a key, the last one given: Hydra takes no choice of a group twice."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
