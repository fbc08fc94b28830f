"""The typed root of every configuration.

Every value that Python reads as ``config.x`` is declared here, so that a wrong key or type fails when the configuration
is composed. The arguments of a constructor are YAML with ``_target_``; that constructor checks them. The line under
each field is printed by ``dkl train --help`` and ``dkl evaluate --help``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

WEIGHTS = ("last", "average", "best")
"""Weights of a run that can be evaluated: of the last epoch, averaged over epochs, or of the best epoch."""

TargetConfig = Mapping[str, Any]
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
    """Random changes of training images; ``dkl.data.Augment`` says in which order."""

    crop_padding: int = 0
    """Pad by this many pixels on each side and crop back at random, at least 0."""
    crop_fill: str = "zeros"
    """What the padding is: zeros, or reflect for the image mirrored at its border."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    rotation: float = 0.0
    """Rotate by a random angle of at most this many degrees, in [0, 180]."""
    cutout: int = 0
    """Side in pixels of a square hole at a random place; 0 is none."""
    second_view: str | None = None
    """Add a second draw of every image: autoaugment, cutout, or null for none."""
    randaugment: str | None = None
    """A RandAugment policy in timm's notation, such as rand-m7-mstd0.5, for images read from files; null for none."""
    repeats: int = 1
    """Show each image this many times per epoch, and fewer images, at least 1."""
    scale: list[float] = field(default_factory=list)
    """Resize image and mask by a random factor between these two, above 0; empty for not at all. Needs masks."""
    unrotated: float = 0.0
    """Share of images that rotation leaves alone, in [0, 1]. Needs masks."""
    blur: float = 0.0
    """Share of images blurred by a 5x5 Gaussian, in [0, 1]. Needs masks."""


@dataclass
class SyntheticConfig:
    """Synthetic images that are mixed with the real ones."""

    files: list[str] = field(default_factory=list)
    """The .npz files of synthetic images, in order; empty for none."""
    fraction: float = 0.0
    """Share of synthetic images in every batch, in [0, 1); 0 without files."""


@dataclass
class UnlabeledConfig:
    """Images without labels beside the labeled ones, for semi-supervised tasks: two views of each."""

    ratio: int = 0
    """Unlabeled images per labeled one in every step, at least 1; 0 for none."""
    second_view: str = "strong"
    """strong (RandAugment and a gray hole), or weak for another draw of data.augment, as in Mean-Teacher."""
    operations: int = 3
    """RandAugment operations of the strong view, drawn with replacement, at least 0."""
    probability: float = 1.0
    """Probability in [0, 1] that each of them is applied."""
    smallest_hole: float = 0.0
    """Least side of the hole as a share of the image's, in [0, 1]."""
    largest_hole: float = 0.5
    """Greatest side of the hole as a share of the image's, in [0, 1]; 0 for no hole."""


@dataclass
class DataConfig:
    """A dataset and how its images are changed in training."""

    name: str = MISSING
    """Name in folders and records."""
    num_classes: int = MISSING
    """Number of classes, at least 1."""
    shape: list[int] = MISSING
    """Image shape: channels, height, width."""
    eps: str = MISSING
    """Usual Linf radius of attacks, in pixel units of [0, 1], such as 8/255."""
    mean: list[float] | None = None
    """Channel means for models that normalize their input; null if there are none."""
    std: list[float] | None = None
    """Channel standard deviations for models that normalize their input; null if there are none."""
    train_size: int | None = None
    """Use this many training images, balanced over classes; null for all."""
    test_size: int | None = None
    """Use this many test images, balanced over classes; null for all."""
    ignore_index: int | None = None
    """Label of pixels that do not count, no class; null for images with one label each."""
    class_names: list[str] = field(default_factory=list)
    """Names of the classes in figures; empty for their numbers."""
    long_tail: bool = False
    """Classes have different numbers of training images on purpose, so train_size must be null."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of training images."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Synthetic images that are mixed with the real ones."""
    labels_per_class: int | None = None
    """Keep the labels of this many training images per class, drawn by seed as in USB; null keeps all."""
    unlabeled: UnlabeledConfig = field(default_factory=UnlabeledConfig)
    """Unlabeled images in semi-supervised training."""
    source: Any = MISSING
    """Function that returns training and test images, and its arguments."""


@dataclass
class OptimizerConfig:
    """The optimizer. Its rate over the epochs is the group ``schedule``."""

    name: OptimizerName = OptimizerName.sgd
    """sgd, lamb or adamw."""
    lr: float = 0.1
    """Peak learning rate, at least 0."""
    momentum: float = 0.9
    """Momentum of sgd, at least 0."""
    nesterov: bool = False
    """Use Nesterov momentum; sgd only."""
    weight_decay: float = 5e-4
    """L2 penalty of sgd, decoupled decay of lamb and adamw, at least 0."""
    no_decay: list[str] = field(default_factory=list)
    """Spare parameters whose name contains one of these from weight decay."""
    decay_vectors: bool = True
    """Decay biases and normalization scales too."""
    faster: list[str] = field(default_factory=list)
    """Names of parts whose rate is faster_by times the rate: parameters that start with one of these."""
    faster_by: float = 10.0
    """Factor of the rate of the parts in faster, above 0."""
    layer_decay: float | None = None
    """Factor in (0, 1] from each layer's rate to that of the layer before it; null for one rate."""


@dataclass
class SelectionConfig:
    """Robust accuracy during training, on held-out training images; the best epoch is kept as ``best.pt``."""

    holdout: int = 0
    """Hold out this many training images, but at most a quarter; 0 switches selection off."""
    every: int = 0
    """Measure after every so many epochs; 0 switches selection off."""
    attack: str = "pgd-20"
    """pgd-K or cw-K: K steps of eps/4."""
    norm: str = "linf"
    """linf or l2."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    seed: int = 0
    """Seed of the attack's start."""


@dataclass
class TrainerConfig:
    """Epochs, batch size, devices and precision."""

    epochs: int = 20
    """Number of epochs, at least 1."""
    batch_size: int = 128
    """Images per step on all devices together, at least 1; the labeled ones in semi-supervised training."""
    steps_per_epoch: int | None = None
    """With data.labels_per_class: steps per epoch, in endless shuffled passes; null for one pass."""
    initial_weights: str | None = None
    """File with weights to start from, all but the classifier's; null starts at random."""
    accumulate: int = 1
    """Compute each device's share of a batch in this many parts, one after another, to save memory."""
    device: str = "auto"
    """auto (CUDA if there is a GPU), cpu or cuda."""
    devices: int = 1
    """Number of processes that share a batch, one per GPU."""
    sync_batchnorm: bool = False
    """Share BatchNorm's statistics over devices; by default each sees its own part, as in the official code."""
    workers: int = 0
    """Processes that prepare AutoAugment's views or decode files, at least 0."""
    precision: Precision = Precision.float32
    """float32, float64, or bf16 (float32 weights under bfloat16 autocast)."""
    channels_last: bool = True
    """Store images and weights with channels last, which is faster on GPUs."""
    compile: bool = False
    """Compile the network by torch.compile."""
    threads: int | None = None
    """Threads of torch on a CPU; null for torch's default."""
    validate_every: int = 1
    """Measure test accuracy after every so many epochs; 0 is only after the last."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller."""


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does with this run unless its own options say otherwise."""

    attacks: Any = "standard"
    """standard (AutoAttack), bounded, fast, pgd, none (accuracy only), or a list of attacks."""
    weights: str | None = None
    """last, average or best; null takes the average if the run keeps one, else the last."""
    norm: str = "linf"
    """linf or l2."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    n: int | None = None
    """Attack this many test images, balanced over classes; null for all."""
    batch_size: int = 200
    """Images per batch, at least 1; also for test accuracy during training."""
    tolerance: float = 0.2
    """With attacks=bounded: the widest interval of robust accuracy, in percentage points, above 0."""
    seed: int = 0
    """Seed of the attacks."""
    mirrored: bool = False
    """With masks: average the predictions of each window and its mirror image."""
    long_side: int | None = None
    """With masks: resize images so that their longer side has this many pixels; null for their own size."""


@dataclass
class PathsConfig:
    """Folders. They are not part of a run's hash."""

    data: str = "data"
    """Folder of the datasets; DKL_DATA_DIR sets the default."""
    results: str = "results"
    """Folder of runs, records and tables; DKL_RESULTS_DIR sets the default."""


@dataclass
class BudgetConfig:
    """The size of an experiment."""

    name: str = "own"
    """paper, mini or smoke; own makes no promise about sizes."""
    source: Any = None
    """Where images come from at a budget with its own images; null for the dataset's."""


@dataclass
class TrainConfig:
    """The root of ``dkl train``."""

    data: DataConfig = MISSING
    """Dataset, its size and augmentation."""
    model: Any = MISSING
    """Network."""
    task: Any = MISSING
    """What one training step computes."""
    loss: Any = None
    """Loss between two sets of logits; null if the task takes none."""
    attack: Any = None
    """Attack that makes adversarial training images; null if the task takes none."""
    averaging: Any = None
    """Average of the weights over training; null for none."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Robust accuracy during training, and which epoch is kept."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and weight decay."""
    schedule: Any = MISSING
    """Learning rate over the epochs."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Epochs, batch size, devices and precision."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Defaults of dkl evaluate for this run."""
    logger: Any = None
    """Where metrics are reported in addition to the run's files; null for nowhere."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Folders of data and results."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Size of the experiment: paper, mini, smoke or own."""
    recipe_name: str = MISSING
    """Name of the recipe; set by its file."""
    seed: int = 0
    """Seed of weights, batches and attacks, at least 0."""
    label: str | None = None
    """Name of the method in tables; null derives it from the loss."""


# None is "not given" here: the value then comes from the run. A default would hide what the run was trained for.
@dataclass
class EvaluateConfig:
    """The root of ``dkl evaluate``: a ``run``, or a ``checkpoint`` with ``model`` and ``data``.

    Null values are taken from the run, or for a foreign checkpoint from the dataset and ``EvaluationConfig``.
    """

    run: str | None = None
    """Folder of a finished run of dkl train."""
    checkpoint: str | None = None
    """File with anyone's weights; needs model= and data=."""
    data: DataConfig | None = None
    """Dataset of a checkpoint."""
    model: Any = None
    """Network of a checkpoint."""
    label: str | None = None
    """Name of the method in tables; null takes the run's, or the file's name."""
    logger: Any = None
    """Where results are reported in addition to the record; null takes the run's logger, none switches it off."""
    additional_data: bool = False
    """The checkpoint was trained with additional data; the record says so."""
    attacks: Any = None
    """standard (AutoAttack), bounded, fast, pgd, none (accuracy only), or a list of attacks."""
    package: bool = False
    """Run AutoAttack as its authors wrote it (pyautoattack): the same flags, slower."""
    weights: str | None = None
    """Which weights of a run: last, average or best."""
    norm: str | None = None
    """linf or l2."""
    eps: str | None = None
    """Radius, in pixel units of [0, 1], such as 8/255."""
    n: int | None = None
    """Attack this many test images, balanced over classes."""
    batch_size: int | None = None
    """Images per batch, at least 1."""
    tolerance: float | None = None
    """With attacks=bounded: the widest interval of robust accuracy, in percentage points, above 0."""
    seed: int | None = None
    """Seed of the attacks."""
    mirrored: bool | None = None
    """With masks: average the predictions of each window and its mirror image."""
    long_side: int | None = None
    """With masks: resize images so that their longer side has this many pixels."""
    device: str = "auto"
    """auto (CUDA if there is a GPU), cpu or cuda."""
    devices: int = 1
    """Number of processes that share a batch, one per GPU."""
    threads: int | None = None
    """Threads of torch on a CPU; null for torch's default."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Folders of data and results."""
