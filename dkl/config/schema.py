"""The typed root of every configuration.

What Python reads as ``cfg.x`` is declared here, so that a typo in a key or a value of the wrong type fails when the
configuration is composed. What goes to a constructor is YAML with ``_target_`` and is checked by that constructor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

Node = Mapping[str, Any]
"""A configuration with ``_target_``: which class or function to call, and its arguments."""


class Precision(Enum):
    """Arithmetic of training: float32, float64 (for proofs), or float32 weights under bfloat16 autocast."""

    float32 = "float32"
    float64 = "float64"
    bf16 = "bf16"


class OptimizerName(Enum):
    """torch's SGD, or timm's LAMB or AdamW."""

    sgd = "sgd"
    lamb = "lamb"
    adamw = "adamw"


@dataclass
class AugmentConfig:
    """Crop after zero-padding, mirroring, rotation by up to so many degrees, a square hole of ``cutout`` pixels.

    ``second_view`` (``autoaugment`` or ``cutout``) adds another draw of every image, changed that way. ``randaugment``,
    for images read from files, is a policy of timm's such as ``rand-m7-mstd0.5``. ``repeats`` shows an image so many
    times an epoch, and fewer of them.
    """

    crop_padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    cutout: int = 0
    second_view: str | None = None
    randaugment: str | None = None
    repeats: int = 1


@dataclass
class SyntheticConfig:
    """Generated images beside the real ones: the parts of an ``.npz`` set, and their share of every batch."""

    files: list[str] = field(default_factory=list)
    fraction: float = 0.0


@dataclass
class DataConfig:
    """A data set: ``shape`` is (C, H, W), ``eps`` its customary Linf radius; sizes of None take every image.

    ``mean`` and ``std``, one value a channel, are for models that normalise their input.
    """

    name: str = MISSING
    num_classes: int = MISSING
    shape: list[int] = MISSING
    eps: str = MISSING
    mean: list[float] | None = None
    std: list[float] | None = None
    train_size: int | None = None
    test_size: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    source: Any = MISSING


@dataclass
class OptimizerConfig:
    """The optimizer; ``momentum`` and ``nesterov`` are for SGD only. Its rate over epochs is ``schedule``."""

    name: OptimizerName = OptimizerName.sgd
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    no_decay: list[str] = field(default_factory=list)
    decay_vectors: bool = True


@dataclass
class SelectionConfig:
    """Robust accuracy during training: every so many epochs, on so many training images held out of training.

    The epoch with the highest is kept as ``best.pt``; ``attack`` is ``pgd-K`` or ``cw-K``, K steps of eps/4. At most a
    quarter of the training images is held out.
    """

    holdout: int = 0
    every: int = 0
    attack: str = "pgd-20"
    norm: str = "linf"
    eps: str = "${data.eps}"
    seed: int = 0


@dataclass
class TrainerConfig:
    """How long, in what batches, on what and in which arithmetic training runs.

    ``batch_size`` is that of all ``devices`` together, and of one step; each device computes its share of it in
    ``accumulate`` parts, one after another, where memory is short. BatchNorm sees one part of one device's share, as in
    the official code, unless ``sync_batchnorm``. ``workers`` prepare AutoAugment's views, or decode files.
    """

    epochs: int = 20
    batch_size: int = 128
    accumulate: int = 1
    device: str = "auto"
    devices: int = 1
    sync_batchnorm: bool = False
    workers: int = 0
    precision: Precision = Precision.float32
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    validate_every: int = 1
    drop_last: bool = False


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does to this run by default; ``n`` images balanced over classes, None for all.

    ``attacks=none`` measures accuracy alone.

    ``weights`` are the ``last`` epoch's, their ``average``, or the ``best`` of selection; None takes the average where
    the run keeps one.
    """

    attacks: Any = "standard"
    weights: str | None = None
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
    """Which of the three sizes of the paper's experiments this is, or ``own``.

    ``source`` is where images come from instead, at a budget that brings its own.
    """

    name: str = "own"
    source: Any = None


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
    averaging: Any = None
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Any = MISSING
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

    What is None is taken from the run, or for foreign weights from the data set and ``EvaluationConfig``; so is the
    logger, which ``logger=none`` switches off.
    """

    run: str | None = None
    checkpoint: str | None = None
    data: DataConfig | None = None
    model: Any = None
    label: str | None = None
    logger: Any = None
    additional_data: bool = False
    attacks: Any = None
    weights: str | None = None
    norm: str | None = None
    eps: str | None = None
    n: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    device: str = "auto"
    devices: int = 1
    threads: int | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)
