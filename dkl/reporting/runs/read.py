"""Reads the runs of a results folder: configuration, metrics, state and evaluations."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # OmegaConf's, which has no types; OmegaConf itself takes 20 ms per file

from dkl.errors import UserError
from dkl.records import Curves, Record, load_all
from dkl.reporting.grouping import created_at, group
from dkl.reporting.names import attacks_label
from dkl.storage.files import is_locked

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C is ten times faster, but some installations lack it."""

TEST_ACCURACIES = ("average_test_miou", "test_miou", "average_test_accuracy", "test_accuracy")
"""Metrics on test images; the first that a run has counts. A run with averaged weights keeps the average."""

ROBUST_ACCURACIES = ("best_robust_accuracy", "robust_accuracy")
"""Metrics of robust accuracy on held-out images, the first that a run has counts."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run of ``dkl train``.

    ``settings`` are the values of its ``config.yaml`` by dotted key, interpolations unresolved. ``metrics`` has one row
    per trained epoch. ``records`` are its evaluations, from old to new.
    """

    folder: Path
    settings: Mapping[str, Any]
    metrics: Curves
    records: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def hash(self) -> str:
        """The hash of its configuration, which ends its name."""
        return self.name.rpartition("-")[2]

    @property
    def epochs(self) -> str:
        """Trained epochs and all epochs, such as ``7/20``."""
        return f"{len(self.metrics)}/{self.settings['trainer.epochs']}"

    @cached_property
    def state(self) -> str:
        """``done``, ``running`` (another process holds its lock) or ``interrupted``."""
        if len(self.metrics) >= self.settings["trainer.epochs"]:
            return "done"
        return "running" if is_locked(self.folder / ".lock") else "interrupted"

    def last(self, *metrics: str) -> float | None:
        """Return the last value of the first of ``metrics`` that any epoch has."""
        for metric in metrics:
            if found := [row[metric] for row in self.metrics if metric in row]:
                return found[-1]
        return None

    @property
    def test(self) -> str:
        """The last test accuracy in percent, or nothing."""
        value = self.last(*TEST_ACCURACIES)
        return "" if value is None else f"{100 * value:.2f}"

    @property
    def robust(self) -> str:
        """The newest robust accuracy in percent with its attack; without an evaluation, that on held-out images."""
        if attacked := [record for record in self.records if record.robust is not None]:
            record = attacked[-1]
            return f"{100 * (record.robust or 0):.2f} ({attacks_label(record).removesuffix(' (not AutoAttack)')})"
        value = self.last(*ROBUST_ACCURACIES)
        return "" if value is None else f"{100 * value:.2f} (held out)"


def read_runs(results: Path) -> tuple[list[RunSummary], list[str]]:
    """Read every run in ``results``, sorted by name, and one message per run or record that cannot be read.

    Raises UserError if there is none.
    """
    records, problems = load_all(results / "records")
    # Evaluated as anyone's checkpoint, its weights may be another network, such as one with another normalization.
    own = sorted((record for record in records if record.seed is not None), key=created_at)
    by_run = group(own, lambda record: record.checkpoint.partition("/")[0])
    found: list[RunSummary] = []
    for path in sorted((results / "runs").glob("*/config.yaml")):
        try:
            found.append(read_run(path.parent, by_run.get(path.parent.name, [])))
        except UserError as error:
            problems.append(str(error))
    if not found:
        broken = "".join(f"; {problem}" for problem in problems)
        raise UserError(
            f"{results / 'runs'} has no run: train one by dkl train, or name another results=FOLDER{broken}"
        )
    return found, problems


def find_run(runs: list[RunSummary], name: str) -> RunSummary:
    """Return the run that ``name`` means: its folder, the folder's name, or a part of the name that only it has.

    Raises UserError if there is none, or more than one.
    """
    wanted = Path(name).name
    exact = [run for run in runs if wanted == run.name]
    found = exact or [run for run in runs if wanted in run.name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"there is no run {name}: dkl runs lists them")
    raise UserError(f"{name} is a part of {len(found)} names: {', '.join(run.name for run in found)}; give more of one")


def read_run(folder: Path, records: list[Record]) -> RunSummary:
    """Read the run in ``folder``, whose evaluations are ``records``.

    Raises UserError, which names the file, if its files are broken.
    """
    path = folder / "config.yaml"
    try:
        content = yaml.load(path.read_bytes(), LOADER)
        settings = dict(_flat(content)) if isinstance(content, dict) else {}
        if not isinstance(settings.get("trainer.epochs"), int):
            raise ValueError("it has no trainer.epochs")
        path = folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        metrics = [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) and "epoch" in row for row in metrics):
            raise ValueError("a row has no epoch")
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {why}; delete the run, or train it again") from None
    return RunSummary(folder=folder, settings=settings, metrics=metrics, records=records)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted key."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", None if value == {} else value
