"""Evaluation records: a JSON file an evaluation, with its provenance; beside it per-example flags and the run's curves.

A record is written once, whole, and read back strictly: a file that is broken, of another schema or not a record is
rejected by name and never half-used. Accuracies are fractions in [0, 1]; eps is in [0, 1] pixel units, 0 where nothing
attacks.
"""

import csv
import dataclasses
import json
import math
import types
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from dkl.config import row_identity
from dkl.errors import UserError
from dkl.files import write_atomically, write_rows, write_text
from dkl.threat import AUTOATTACK

SCHEMA = 2

BUDGETS = ("own", "paper", "mini", "smoke")

SHOTS = ("many", "medium", "few")
"""Groups of classes by their training images: more than 100, fewer than 20, and between."""

Flags = dict[str, NDArray[np.bool_]]

Curves = list[dict[str, float]]
"""What a run measured, one row an epoch: ``epoch``, ``lr``, ``loss``, accuracies, ``images_per_second``."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """Accuracy left after one attack and all before it, and its seconds, summed where several processes worked."""

    robust: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluation of one set of weights. ``seed`` is training's; None for weights trained elsewhere.

    ``weights`` says which of a run's these are, and ``synthetic`` which generated images it trained on beside the real
    ones; ``additional_data`` is RobustBench's word for real images from elsewhere.

    ``clean`` and ``top5`` (None with at most five classes) are these weights' accuracies on the images as they are;
    ``robust`` is None where nothing attacked them. ``shots`` is the mean accuracy of the classes of each of ``SHOTS``,
    None where training images have no long tail. ``best`` is the highest accuracy on the run's test images after any
    epoch, first reached after ``best_epoch``: it is chosen on the test set, and is not these weights'. ``step_seconds``
    is what a training step took in the median epoch, None where that is not known. ``partial`` says that only some of
    the run's test images were asked for. ``teacher`` is the fingerprint of the network that taught this one.
    """

    id: str
    method: str
    dataset: str
    architecture: str
    budget: str
    seed: int | None
    norm: str
    eps: float
    eps_text: str
    attacks: list[str]
    n: int
    clean: float
    robust: float | None
    per_attack: dict[str, AttackResult]
    evaluation_seed: int
    batch_size: int
    additional_data: bool
    config_hash: str
    checkpoint: str
    checkpoint_sha256: str
    data_sha256: str
    created: str
    seconds: float
    versions: dict[str, str]
    hardware: dict[str, Any]
    git_commit: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    weights: str = "last"
    synthetic: str | None = None
    top5: float | None = None
    shots: dict[str, float] | None = None
    best: float | None = None
    best_epoch: int | None = None
    step_seconds: float | None = None
    partial: bool = False
    teacher: str | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema is {self.schema}, this version reads {SCHEMA}")
        if self.norm not in ("Linf", "L2"):
            raise ValueError(f"norm is {self.norm!r}, not Linf or L2")
        if self.budget not in BUDGETS:
            raise ValueError(f"budget is {self.budget!r}, not one of {', '.join(BUDGETS)}")
        if self.n < 1 or set(self.attacks) != set(self.per_attack) or bool(self.attacks) == (self.robust is None):
            raise ValueError("n is below 1, or attacks, per_attack and robust disagree")
        if (self.best is None) != (self.best_epoch is None) or not set(self.shots or ()) <= set(SHOTS):
            raise ValueError(f"best and best_epoch go together, and shots are of {', '.join(SHOTS)}")
        if self.step_seconds is not None and not 0 < self.step_seconds < math.inf:
            raise ValueError(f"step_seconds is {self.step_seconds}, not a time")
        self._check_accuracies()

    def _check_accuracies(self) -> None:
        results = (result.robust for result in self.per_attack.values())
        maybe = (self.robust, self.top5, self.best, *results, *(self.shots or {}).values())
        accuracies = [self.clean, *(accuracy for accuracy in maybe if accuracy is not None)]
        if not all(0 <= accuracy <= 1 for accuracy in accuracies):
            raise ValueError("accuracies must lie in [0, 1]")
        if (self.robust is not None and self.robust > self.clean) or (self.top5 is not None and self.top5 < self.clean):
            raise ValueError("accuracies must rise from robust to clean to top5: robust must not exceed clean")

    @cached_property
    def row(self) -> str:
        """What all records of one table row share; for weights trained elsewhere, the checkpoint's hash."""
        known = self.seed is not None and self.training
        return row_identity(self.training) if known else self.checkpoint_sha256

    @property
    def accuracy_only(self) -> bool:
        """True where nothing was attacked: the record is of clean accuracy."""
        return not self.attacks

    @property
    def is_autoattack(self) -> bool:
        """True where the robust accuracy is that of standard AutoAttack: all four attacks."""
        return set(AUTOATTACK) <= set(self.attacks)


def save(
    record: Record,
    flags: Mapping[str, NDArray[np.bool_]],
    folder: Path,
    curves: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``record`` as ``<folder>/<id>.json``, and before it, beside it, the flags ``[n]`` of each attack (``.npz``)
    and the ``curves`` of its run, where there are any (``.csv``); returns the record's path."""
    path = folder / f"{record.id}.json"
    arrays: dict[str, Any] = dict(flags)
    text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n"
    write_atomically(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))
    if curves:
        write_rows(path.with_suffix(".csv"), curves)
    write_text(path, text)
    return path


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the type of a record field."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is types.UnionType:
        return any(_fits(value, option) for option in args)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, args[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _build(cls: type, content: Any) -> Any:
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if cls is Record and content.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"its schema is {content.get('schema')!r}, this version reads {SCHEMA}")
    hints = get_type_hints(cls)
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(content)):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if unknown := sorted(set(content) - set(hints)):
        raise ValueError(f"it has unknown fields {', '.join(unknown)}")
    for name, value in content.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} has the wrong type: {value!r}")
    return cls(**content)


def load(path: Path) -> Record:
    """The record in ``path``. Raises UserError that names the file where it is broken, foreign or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("per_attack"), dict):
            attacks = {name: _build(AttackResult, result) for name, result in content["per_attack"].items()}
            content = {**content, "per_attack": attacks}
        return _build(Record, content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a usable record: {error}") from None


def load_flags(path: Path) -> Flags:
    """The flags beside the record at ``path``, bool ``[n]`` each: ``clean``, ``top5`` where known, and every attack."""
    try:
        with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.with_suffix('.npz')} holds no flags: {error}") from None


def load_curves(path: Path) -> Curves:
    """The curves beside the record at ``path``; none where its run's are not kept. Raises UserError on a broken file.

    What an epoch did not measure is not in its row.
    """
    source = path.with_suffix(".csv")
    try:
        with source.open(encoding="utf-8", newline="") as file:
            rows = [
                {key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file, strict=True)
            ]
        if not all("epoch" in row for row in rows):
            raise ValueError("a row has no epoch")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{source} holds no curves: {error}") from None


def load_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Every record in ``folder``, sorted by id, and one message for each file that is not a usable record."""
    found: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(load(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems
