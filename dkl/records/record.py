"""The fields of an evaluation record, each with its range.

Accuracies are fractions in [0, 1]; eps is in [0, 1] pixel units, and 0 without attacks.
"""

import dataclasses
import math
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from dkl.config import row_identity
from dkl.errors import shortened, visible
from dkl.threat import AUTOATTACK, SUITES, is_own
from dkl.validation import OneOf

BUDGETS = ("own", "paper", "mini", "smoke")

SHOTS = ("many", "medium", "few")
"""Groups of classes by their training images: more than 100, 20 to 100, and fewer than 20."""

LARGEST = 2**63 - 1

Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]

Severities = Annotated[list[Fraction], Field(min_length=5, max_length=5)]

Flags = dict[str, NDArray[np.bool_]]
"""Per attack, whether the network still classifies each test image correctly, [n]; per corruption [5, images]."""

MOST_NESTED = 20
"""Levels of lists and mappings in a field."""

Curves = list[dict[str, float]]
"""One row per epoch: ``epoch``, ``lr``, ``loss``, accuracies, ``epoch_seconds`` of its steps, and their speed."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AttackResult:
    """Accuracy after this attack and all before it, and its seconds summed over processes."""

    robust: Fraction
    seconds: Seconds


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bound:
    """The 95 % interval of bounded AutoAttack: the accuracy after all four attacks is between ``low`` and ``high``.

    ``tolerance`` is the widest interval that was asked for, in percentage points.
    """

    low: Fraction
    high: Fraction
    tolerance: Annotated[float, Field(gt=0, le=100)]

    @property
    def text(self) -> str:
        """The interval in percent."""
        return f"in [{100 * self.low:.2f}, {100 * self.high:.2f}]"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FewLabels:
    """The images that kept their labels in semi-supervised training.

    ``per_class`` images of every class, drawn by ``seed``; ``sha256`` is the hash of their sorted positions among the
    training images, int64, little-endian.
    """

    per_class: Positive
    seed: Natural
    sha256: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Segmented:
    """The result of a network that labels pixels: mean IoU over the classes that occur, and ``iou`` by class.

    A class that occurs neither in truth nor in prediction has None. ``prediction`` says how images were predicted, such
    as by which windows.
    """

    miou: Fraction
    iou: dict[str, Fraction | None]
    prediction: str


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
    - ``tests``: what the task measured of these weights beside their accuracy, by name; None if nothing.
    - ``training_seconds``: of all epochs, without tests between them; None if unknown.
    - ``partial``: fewer images were evaluated than the run's configuration has for testing, or, for weights trained
      elsewhere, than the dataset has.
    - ``teacher``: the fingerprint of the teacher's weights.
    - ``segmented``: mean IoU and more, if pixels have labels; ``clean`` is then the share of correct pixels.
    - ``bound``: the interval of bounded AutoAttack; ``robust`` then counts as misclassified only
      the images that were fooled in the sample.
    - ``few_labels``: the labeled images of semi-supervised training; None if all images have labels.
    - ``protocol``: ``robustbench`` if the images are those of its leaderboard, in their order.
    - ``search``: settings that make the search for adversarial images faster in other rounding, such as
      ``channels_last``; the network itself, in float32, classified what was found.
    - ``corruptions``: the accuracy on images with each common corruption, in the severities 1 to 5.
    - ``model``: the configuration of the evaluated network.
    - ``checksums``: SHA-256 of the ``record`` and of its files of ``flags`` and ``curves``, added when it is saved.
      Records made before they were added have none.

    Raises pydantic.ValidationError if a value is missing, of the wrong type or impossible.
    """

    id: str
    method: str
    dataset: Annotated[str, Field(max_length=100)]
    architecture: str
    budget: Annotated[str, OneOf(*BUDGETS)]
    seed: Natural | None
    norm: Annotated[str, OneOf("Linf", "L2", "L1")]
    eps: Annotated[float, Field(ge=0)]
    eps_text: Annotated[str, Field(max_length=50)]
    attacks: list[str]
    n: Positive
    clean: Fraction
    robust: Fraction | None
    per_attack: dict[str, AttackResult]
    evaluation_seed: Natural
    batch_size: Positive
    additional_data: bool
    config_hash: str
    checkpoint: str
    checkpoint_sha256: str
    data_sha256: str
    created: str
    seconds: Seconds
    versions: dict[str, str]
    hardware: dict[str, Any]
    git_commit: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    weights: str = "last"
    synthetic: str | None = None
    top5: Fraction | None = None
    shots: dict[Annotated[str, OneOf(*SHOTS)], Fraction] | None = None
    best: Fraction | None = None
    best_epoch: Positive | None = None
    step_seconds: Annotated[float, Field(gt=0)] | None = None
    training_seconds: Annotated[float, Field(gt=0)] | None = None
    partial: bool = False
    teacher: str | None = None
    few_labels: FewLabels | None = None
    segmented: Segmented | None = None
    bound: Bound | None = None
    protocol: Literal["robustbench"] | None = None
    search: dict[str, bool | str] = Field(default_factory=dict)
    corruptions: dict[str, Severities] | None = None
    tests: dict[str, float] | None = None
    schema: Literal[2] = 2
    checksums: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.attacks)) != len(self.attacks):
            raise ValueError(f"attacks names one twice: {', '.join(self.attacks)}")
        if set(self.attacks) != set(self.per_attack) or bool(self.attacks) == (self.robust is None):
            raise ValueError("attacks, per_attack and robust disagree: give all three for the same attacks, or none")
        if (self.bound is None) == (tuple(self.attacks) == SUITES["bounded"]):
            raise ValueError("bound belongs to the attacks of the suite bounded, and to no others")
        if (self.best is None) != (self.best_epoch is None):
            raise ValueError("best and best_epoch go together: give both, or neither")
        if self.robust is not None and self.robust > self.clean:
            raise ValueError(f"robust is {self.robust}, it must not exceed clean, which is {self.clean}")
        if self.top5 is not None and self.top5 < self.clean:
            raise ValueError(f"top5 is {self.top5}, it must not be below clean, which is {self.clean}")
        if self.corruptions is not None and (self.attacks or not self.corruptions):
            raise ValueError("corruptions are measured without attacks: give at least one, or no attacks")
        for name, value in dataclasses.asdict(self).items():
            if why := _unusable_part(value):
                raise ValueError(f"{name} {why}")
        return self

    @cached_property
    def row(self) -> str:
        """What all records of one table row share; for weights trained elsewhere, checkpoint and model."""
        known = self.seed is not None and self.training
        return row_identity(self.training) if known else f"{self.checkpoint_sha256}-{self.config_hash}"

    @cached_property
    def time(self) -> datetime:
        """``created``; without a zone it is read as UTC. Raises ValueError if it is no time."""
        created = datetime.fromisoformat(self.created)
        return created if created.tzinfo else created.replace(tzinfo=UTC)

    @property
    def corrupted(self) -> float | None:
        """The mean accuracy over corruptions and severities; None if it was not measured."""
        if self.corruptions is None:
            return None
        accuracies = [accuracy for severities in self.corruptions.values() for accuracy in severities]
        return sum(accuracies) / len(accuracies)

    @property
    def slack(self) -> float:
        """How far the accuracy under AutoAttack may lie below ``robust``, down to the ``bound``; 0 without one."""
        return 0.0 if self.robust is None or self.bound is None else self.robust - self.bound.low

    @property
    def accuracy_only(self) -> bool:
        """Whether the record holds clean accuracy only."""
        return not self.attacks

    @property
    def is_autoattack(self) -> bool:
        """Whether all four attacks of standard AutoAttack ran, in float32, and no attack that is the user's code."""
        known = not any(map(is_own, self.attacks)) and "precision" not in self.search
        return known and set(AUTOATTACK) <= set(self.attacks)


def _unusable_part(value: Any, depth: int = 0) -> str | None:
    """What makes a plain value unusable: nesting, control characters, or a number that is not finite or too large."""
    if depth > MOST_NESTED:
        return f"is nested more than {MOST_NESTED} levels deep"
    if isinstance(value, dict | list):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_unusable_part(item, depth + 1) for item in inner)), None)
    if isinstance(value, str) and value != visible(value):
        return f"holds control characters: {shortened(visible(value))}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "holds a whole number of more than 64 bits"
    return f"holds {value}, which is not finite" if isinstance(value, float) and not math.isfinite(value) else None
