"""Evaluation records: one JSON file per evaluation, with its provenance.

Beside ``<id>.json`` lie the per-example flags (``.npz``) and the training curves of the run (``.csv``). Records are
written atomically and read strictly: a file that is broken, of another schema or not a record is an error that names
the file. Accuracies are fractions in [0, 1]; eps is in [0, 1] pixel units, and 0 without attacks.
"""

import csv
import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from dkl.config import row_identity
from dkl.errors import UserError
from dkl.files import write_atomically, write_rows, write_text
from dkl.threat import AUTOATTACK
from dkl.validation import first_mistake, one_of

BUDGETS = ("own", "paper", "mini", "smoke")

SHOTS = ("many", "medium", "few")
"""Groups of classes by their training images: more than 100, 20 to 100, and fewer than 20."""

Fraction = Annotated[float, Field(ge=0, le=1)]

Flags = dict[str, NDArray[np.bool_]]
"""Per attack, whether the network still classifies each test image correctly, [n]."""

Curves = list[dict[str, float]]
"""One row per epoch: ``epoch``, ``lr``, ``loss``, accuracies, ``images_per_second``."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttackResult:
    """Accuracy after this attack and all before it, and its seconds summed over processes."""

    robust: Fraction
    seconds: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FewLabels:
    """The images that kept their labels in semi-supervised training.

    ``per_class`` images of every class, drawn by ``seed``; ``sha256`` is the hash of their sorted positions among the
    training images, int64, little-endian.
    """

    per_class: Annotated[int, Field(ge=1)]
    seed: int
    sha256: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Record:
    """One evaluation of one set of weights.

    - ``seed``: the training seed; None for weights trained elsewhere.
    - ``weights``: which weights of the run, such as ``average epoch 200``.
    - ``synthetic``: the synthetic images that were added in training; None without any.
    - ``additional_data``: RobustBench's flag for real images from other datasets.
    - ``clean``, ``top5``: accuracies on unchanged images; ``top5`` is None with at most five classes.
    - ``robust``: accuracy after all attacks; None without attacks.
    - ``shots``: mean accuracy per group of classes in a long-tailed dataset.
    - ``best``, ``best_epoch``: the highest accuracy on the run's test images after any epoch, and the first epoch that
      reached it. It is chosen on the test set and belongs to other weights than ``clean``.
    - ``step_seconds``: seconds per training step in the median epoch; None if unknown.
    - ``partial``: only some of the test images were evaluated.
    - ``teacher``: the fingerprint of the teacher's weights.
    - ``few_labels``: the labeled images of semi-supervised training; None if all images have labels.
    - ``model``: the configuration of the evaluated network.

    Raises pydantic.ValidationError if a value is missing, of the wrong type or impossible.
    """

    id: str
    method: str
    dataset: str
    architecture: str
    budget: Annotated[str, one_of(*BUDGETS)]
    seed: int | None
    norm: Annotated[str, one_of("Linf", "L2")]
    eps: float
    eps_text: str
    attacks: list[str]
    n: Annotated[int, Field(ge=1)]
    clean: Fraction
    robust: Fraction | None
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
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    weights: str = "last"
    synthetic: str | None = None
    top5: Fraction | None = None
    shots: dict[Annotated[str, one_of(*SHOTS)], Fraction] | None = None
    best: Fraction | None = None
    best_epoch: int | None = None
    step_seconds: Annotated[float, Field(gt=0)] | None = None
    partial: bool = False
    teacher: str | None = None
    few_labels: FewLabels | None = None
    schema: Literal[2] = 2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if set(self.attacks) != set(self.per_attack) or bool(self.attacks) == (self.robust is None):
            raise ValueError("attacks, per_attack and robust disagree: give all three for the same attacks, or none")
        if (self.best is None) != (self.best_epoch is None):
            raise ValueError("best and best_epoch go together: give both, or neither")
        if self.robust is not None and self.robust > self.clean:
            raise ValueError(f"robust is {self.robust}, it must not exceed clean, which is {self.clean}")
        if self.top5 is not None and self.top5 < self.clean:
            raise ValueError(f"top5 is {self.top5}, it must not be below clean, which is {self.clean}")
        return self

    @cached_property
    def row(self) -> str:
        """What all records of one table row share; for weights trained elsewhere, checkpoint and model."""
        known = self.seed is not None and self.training
        return row_identity(self.training) if known else f"{self.checkpoint_sha256}-{self.config_hash}"

    @property
    def accuracy_only(self) -> bool:
        """Whether the record holds clean accuracy only."""
        return not self.attacks

    @property
    def is_autoattack(self) -> bool:
        """Whether all four attacks of standard AutoAttack ran."""
        return set(AUTOATTACK) <= set(self.attacks)


_READER = TypeAdapter(Record)


def save(
    record: Record,
    flags: Mapping[str, NDArray[np.bool_]],
    folder: Path,
    curves: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``record``, the ``flags`` [n] of each attack and the ``curves`` of its run; return the record's path."""
    path = folder / f"{record.id}.json"
    arrays: dict[str, Any] = dict(flags)
    # The record is written last: if it exists, so do its flags and curves.
    text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n"
    write_atomically(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))
    if curves:
        write_rows(path.with_suffix(".csv"), curves)
    write_text(path, text)
    return path


def load(path: Path) -> Record:
    """Read the record in ``path``, and compare its accuracies with its flags if there is a file of them.

    Raises UserError, which names the file, if it is broken, of another schema or contradicts its flags.
    """
    try:
        record: Record = _READER.validate_json(path.read_bytes())
    except ValidationError as error:
        raise _unusable(
            path, first_mistake(error, {"": Record, "per_attack": AttackResult, "few_labels": FewLabels})
        ) from None
    except OSError as error:
        raise _unusable(path, str(error)) from None
    if path.with_suffix(".npz").exists() and (why := _contradiction(record, load_flags(path))):
        raise _unusable(path, why)
    return record


def _unusable(path: Path, why: str) -> UserError:
    return UserError(f"{path} is not a usable record: {why}; evaluate again, or delete the file")


def _contradiction(record: Record, flags: Flags) -> str | None:
    """Return the first accuracy of ``record`` that its flags contradict, in words; None if they agree."""
    accuracies = {"clean": record.clean, **{name: result.robust for name, result in record.per_attack.items()}}
    if record.top5 is not None:
        accuracies["top5"] = record.top5
    for name, accuracy in accuracies.items():
        if name not in flags:
            return f"its file of flags lacks {name}"
        if flags[name].shape != (record.n,):
            return f"n is {record.n}, but its flags {name} have shape {flags[name].shape}"
        # Whole images are compared, because the mean of flags is rounded.
        if int(flags[name].sum()) != round(accuracy * record.n):
            return f"{name} is {accuracy}, but the mean of its flags is {flags[name].mean()}"
    if record.robust is not None and record.robust != min(result.robust for result in record.per_attack.values()):
        return f"robust is {record.robust}, but it must be the lowest accuracy in per_attack"
    return None


def load_flags(path: Path) -> Flags:
    """Read the flags of the record at ``path``: ``clean``, ``top5`` if known, and every attack, bool [n] each.

    Raises UserError if there is no usable file.
    """
    try:
        with path.with_suffix(".npz").open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.with_suffix('.npz')} is not a usable file of flags: {error}; evaluate again") from None


def load_curves(path: Path) -> Curves:
    """Read the curves of the record at ``path``; empty if it has none.

    A row holds only what was measured after that epoch. Raises UserError if the file is broken.
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
        raise UserError(f"{source} is not a usable file of curves: {error}; evaluate again") from None


def load_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Read every record in ``folder``, sorted by id; also return one message per file that is not a usable record."""
    found: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(load(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems
