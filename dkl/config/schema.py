"""The typed root of every configuration.

What Python reads as ``cfg.x`` is declared here, so that a typo in a key or a value of the wrong type fails when the
configuration is composed. What goes to a constructor is YAML with ``_target_`` and is checked by that constructor.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class Precision(Enum):
    """Arithmetic of training: float32, float64 (for proofs), or float32 weights under bfloat16 autocast."""

    float32 = "float32"
    float64 = "float64"
    bf16 = "bf16"


class Schedule(Enum):
    """Learning rate over epochs; see ``dkl.training.schedules``."""

    cosine = "cosine"
    constant = "constant"


@dataclass
class AugmentConfig:
    """Random crop after zero-padding, and mirroring."""

    crop_padding: int = 0
    flip: bool = False


@dataclass
class DataConfig:
    """A data set: ``shape`` is (C, H, W), ``eps`` its customary Linf radius; sizes of None take every image."""

    name: str = MISSING
    num_classes: int = MISSING
    shape: list[int] = MISSING
    eps: str = MISSING
    train_size: int | None = None
    test_size: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    source: Any = MISSING


@dataclass
class OptimizerConfig:
    """SGD and its schedule; ``warmup_epochs`` rise linearly."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.cosine
    warmup_epochs: int = 0


@dataclass
class TrainerConfig:
    """How long, in what batches, on what and in which arithmetic training runs."""

    epochs: int = 20
    batch_size: int = 128
    device: str = "auto"
    precision: Precision = Precision.float32
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    validate_every: int = 1
    drop_last: bool = False


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does to this run by default; ``n`` images balanced over classes, None for all."""

    attacks: Any = "standard"
    norm: str = "linf"
    eps: str = "${data.eps}"
    n: int | None = None
    batch_size: int = 200
    seed: int = 0


@dataclass
class PathsConfig:
    """Where data are read and results written; not part of a run's hash."""

    data: str = "data"
    results: str = "results"


@dataclass
class BudgetConfig:
    """Which of the three sizes of the paper's experiments this is, or ``own``."""

    name: str = "own"


@dataclass
class TrainConfig:
    """The root of ``dkl train``. ``label`` is the method's name in tables; None derives it from the loss.

    ``recipe_name`` is set by the recipe's file.
    """

    data: DataConfig = MISSING
    model: Any = MISSING
    task: Any = MISSING
    loss: Any = None
    attack: Any = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logger: Any = None
    paths: PathsConfig = field(default_factory=PathsConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    recipe_name: str = MISSING
    seed: int = 0
    label: str | None = None


@dataclass
class EvaluateConfig:
    """The root of ``dkl evaluate``: one of ``run`` (its folder) or ``checkpoint`` (with ``model=`` and ``data=``).

    What is None is taken from the run, or for foreign weights from the data set and ``EvaluationConfig``.
    """

    run: str | None = None
    checkpoint: str | None = None
    data: DataConfig | None = None
    model: Any = None
    label: str | None = None
    additional_data: bool = False
    attacks: Any = None
    norm: str | None = None
    eps: str | None = None
    n: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)
