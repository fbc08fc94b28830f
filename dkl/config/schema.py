"""The typed fields of every configuration.

Every value that Python reads as ``config.x`` is declared here, so that a wrong key or type fails when the configuration
is composed. The arguments of a constructor are YAML with ``_target_``; that constructor checks them. The line under
each field is printed by ``dkl train --help`` and ``dkl evaluate --help``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Annotated, Any, TypeVar, dataclass_transform

from omegaconf import MISSING, DictConfig

from dkl import validation as allowed
from dkl.threat import PRECISIONS

T = TypeVar("T")

TargetConfig = Mapping[str, Any]
"""A configuration with ``_target_``: which class or function to call, and its arguments."""

WEIGHTS = ("last", "average", "best")
"""Weights of a run that can be evaluated: of the last epoch, averaged over epochs, or of the best epoch."""


@dataclass
class AugmentConfig:
    """Random changes of training images; ``dkl.data.Augment`` says in which order."""

    crop_padding: Annotated[int, allowed.PIXELS] = 0
    """Pad by this many pixels on each side and crop back at random, from 0 to 1000."""
    crop_fill: str = "zeros"
    """What the padding is: zeros, or reflect for the image mirrored at its border."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    rotation: Annotated[float, allowed.DEGREES] = 0.0
    """Rotate by a random angle of at most this many degrees, from 0 to 180."""
    cutout: Annotated[int, allowed.PIXELS] = 0
    """Side in pixels of a square hole at a random place, from 0 to 1000; 0 is none."""
    second_view: str | None = None
    """Add a second draw of every image: official_autoaugment, autoaugment (torchvision's), cutout, or null for none."""
    randaugment: str | None = None
    """A RandAugment policy in timm's notation, such as rand-m7-mstd0.5, for images read from files; null for none."""
    interpolation: str = "bilinear"
    """With images read from files: how crops are resized, bilinear, or random for bilinear or bicubic."""
    repeats: Annotated[int, allowed.REPEATS] = 1
    """Show each image this many times per epoch, and fewer images, from 1 to 1000."""
    scale: Annotated[list[float], allowed.SCALE] = field(default_factory=list)
    """With masks: resize by a random factor between these two, above 0 and at most 100; empty for not at all."""
    unrotated: Annotated[float, allowed.SHARE] = 0.0
    """With masks: share of images that rotation leaves alone, in [0, 1]."""
    blur: Annotated[float, allowed.SHARE] = 0.0
    """With masks: share of images blurred by a 5x5 Gaussian, in [0, 1]."""
    transforms: list[Any] = field(default_factory=list)
    """Your own, after the others: each a _target_, such as torchvision.transforms.v2.ColorJitter, and its arguments."""


@dataclass
class SyntheticConfig:
    """Synthetic images that are mixed with the real ones."""

    files: list[str] = field(default_factory=list)
    """The .npz files of synthetic images, in order; empty for none."""
    fraction: Annotated[float, allowed.FRACTION] = 0.0
    """Share of synthetic images in every batch, in [0, 1); 0 without files."""


@dataclass
class UnlabeledConfig:
    """Images without labels beside the labeled ones, for semi-supervised tasks: two views of each."""

    ratio: Annotated[int, allowed.Range(0, 1000)] = 0
    """Unlabeled images per labeled one in every step, from 0 to 1000; 0 for none."""
    second_view: Annotated[str, allowed.OneOf("strong", "weak")] = "strong"
    """strong (RandAugment and a gray hole), or weak for another draw of data.augment, as in Mean-Teacher."""
    operations: Annotated[int, allowed.Range(0, 100)] = 3
    """RandAugment operations of the strong view, drawn with replacement, from 0 to 100."""
    probability: Annotated[float, allowed.SHARE] = 1.0
    """Probability in [0, 1] that each of them is applied."""
    smallest_hole: Annotated[float, allowed.SHARE] = 0.0
    """Least side of the hole as a share of the image's, in [0, 1]."""
    largest_hole: Annotated[float, allowed.SHARE] = 0.5
    """Greatest side of the hole as a share of the image's, in [0, 1]; 0 for no hole."""


@dataclass
class DataConfig:
    """A dataset and how its images are changed in training."""

    name: str = MISSING
    """Name in folders and records."""
    num_classes: Annotated[int, allowed.CLASSES] = MISSING
    """Number of classes, from 1 to 1e5."""
    shape: Annotated[list[int], allowed.SIDE] = MISSING
    """Image shape: channels, height, width, each from 1 to 1e5."""
    eps: str = MISSING
    """Usual Linf radius of attacks, in pixel units of [0, 1], such as 8/255."""
    mean: Annotated[list[float] | None, allowed.MEAN] = None
    """Channel means for models that normalize their input, in [0, 1]; null if there are none."""
    std: Annotated[list[float] | None, allowed.STD] = None
    """Channel standard deviations for models that normalize their input, in (0, 1]; null if there are none."""
    train_size: Annotated[int | None, allowed.COUNT] = None
    """Use this many training images, balanced over classes, from 1 to 1e9; null for all."""
    test_size: Annotated[int | None, allowed.COUNT] = None
    """Use this many test images, balanced over classes, from 1 to 1e9; null for all."""
    center_crop: Annotated[float, allowed.CROPPED] = 0.875
    """With images read from files: share of the shorter side that tests see, in (0, 1]."""
    interpolation: Annotated[str, allowed.OneOf("bilinear", "bicubic", "square", "none")] = "bilinear"
    """With images read from files: tests resize them bilinear, bicubic, square (both sides) or none (crop only)."""
    ignore_index: Annotated[int | None, allowed.LABEL] = None
    """Label of pixels that do not count, no class, from -32768 to 65535; null for images with one label each."""
    class_names: list[str] = field(default_factory=list)
    """Names of the classes in figures; empty for their numbers."""
    long_tail: bool = False
    """Classes have different numbers of training images on purpose, so train_size must be null."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of training images."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Synthetic images that are mixed with the real ones."""
    labels_per_class: Annotated[int | None, allowed.COUNT] = None
    """Keep the labels of this many training images per class, from 1 to 1e9, drawn by seed; null keeps all."""
    official_labels: bool = False
    """Draw them as DKL's fork of USB, which takes nine random numbers before; false draws them as USB."""
    unlabeled: UnlabeledConfig = field(default_factory=UnlabeledConfig)
    """Unlabeled images in semi-supervised training."""
    source: Any = MISSING
    """Function that returns training and test images, and its arguments."""


class Precision(Enum):
    """Arithmetic of training: float32, float64 (for proofs), or float32 weights under bfloat16 autocast."""

    float32 = "float32"
    float64 = "float64"
    bf16 = "bf16"


class Matmul(Enum):
    """Precision of products and convolutions of float32 tensors on CUDA devices."""

    tf32 = "tf32"
    ieee = "ieee"


class OptimizerName(Enum):
    """torch's SGD, or an optimizer as timm makes it: torch's Adam, AdamW and RMSprop, and its own LAMB and Muon."""

    sgd = "sgd"
    lamb = "lamb"
    adamw = "adamw"
    adam = "adam"
    rmsprop = "rmsprop"
    muon = "muon"


def any_keys() -> Any:
    """An empty group to which overrides add any key without ``+``."""
    return DictConfig({}, flags={"struct": False})


@dataclass
class OptimizerConfig:
    """The optimizer. Its rate over the epochs is the group ``schedule``."""

    name: OptimizerName = OptimizerName.sgd
    """sgd, lamb, adamw, adam, rmsprop or muon."""
    lr: Annotated[float, allowed.RATE] = 0.1
    """Peak learning rate, from 0 to 1000."""
    momentum: Annotated[float, allowed.Range(0, 1, below=True, usual=(0, 0.99))] = 0.9
    """Momentum of sgd, rmsprop and muon, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum in sgd."""
    weight_decay: Annotated[float, allowed.Range(0, 1000, usual=(0, 0.5))] = 5e-4
    """L2 penalty of sgd, adam and rmsprop, decoupled decay of the others, from 0 to 1000."""
    no_decay: list[str] = field(default_factory=list)
    """Spare parameters whose name contains one of these from weight decay."""
    decay_vectors: bool = True
    """Decay biases and normalization scales too."""
    faster: list[str] = field(default_factory=list)
    """Names of parts whose rate is faster_by times the rate: parameters that start with one of these."""
    faster_by: Annotated[float, allowed.Range(0, 1000, above=True, usual=(0, 100))] = 10.0
    """Factor of the rate of the parts in faster, above 0 and at most 1000."""
    layer_decay: Annotated[float | None, allowed.Range(0, 1, above=True)] = None
    """Factor from each layer's rate to that of the layer before it, in (0, 1]; null for one rate."""
    _target_: str | None = None
    """Import path of an optimizer of torch, timm or your own, instead of name; null for name."""
    arguments: dict[str, Any] = field(default_factory=any_keys)
    """Other arguments of the optimizer, such as optimizer.arguments.betas=[0.9,0.98]."""

    @property
    def title(self) -> str:
        """The setting that chooses the optimizer, for messages."""
        return f"optimizer._target_={self._target_}" if self._target_ else f"optimizer.name={self.name.value}"


@dataclass
class SelectionConfig:
    """Robust accuracy during training, on held-out training images; the best epoch is kept as ``best.pt``."""

    holdout: Annotated[int, allowed.Range(0, 1e9)] = 0
    """Hold out this many training images, from 0 to 1e9, but at most a quarter; 0 switches selection off."""
    balanced: bool = True
    """Hold out as many images of every class; false: the first training images, as DM-Improves-AT does."""
    every: Annotated[int, allowed.EPOCHS] = 0
    """Measure after every so many epochs, from 0 to 1e6; 0 switches selection off."""
    attack: str = "pgd-20"
    """pgd-K or cw-K: K steps of eps/4."""
    norm: str = "linf"
    """linf or l2."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    seed: Annotated[int, allowed.SEED] = 0
    """Seed of the attack's start, from 0 to 4294967295."""


@dataclass
class TrainerConfig:
    """Epochs, batch size, devices and precision."""

    epochs: Annotated[int, allowed.Range(1, 1e6)] = 20
    """Number of epochs, from 1 to 1e6."""
    batch_size: Annotated[int, allowed.BATCH] = 128
    """Images per step on all devices together, from 1 to 1e6; the labeled ones in semi-supervised training."""
    steps_per_epoch: Annotated[int | None, allowed.Range(1, 1e6)] = None
    """With data.labels_per_class: steps per epoch, in endless shuffled passes, from 1 to 1e6; null for one pass."""
    initial_weights: str | None = None
    """File with weights to start from, all but the classifier's; null starts at random."""
    accumulate: Annotated[int, allowed.BATCH] = 1
    """Compute each device's share of a batch in this many parts to save memory, from 1 to 1e6."""
    device: str = "auto"
    """auto (the accelerator if there is one, else the CPU), cpu, cuda or another kind."""
    devices: Annotated[int, allowed.DEVICES] = 1
    """Number of processes that share a batch, one per GPU, from 1 to 10000."""
    sync_batchnorm: bool = False
    """Share BatchNorm's statistics over devices; by default each sees its own part, as in the official code."""
    batch_norm_share: Annotated[int | None, allowed.DEVICES] = None
    """Equal parts in which BatchNorm sees a batch, a multiple of trainer.devices, from 1 to 10000; null for as many."""
    workers: Annotated[int, allowed.Range(0, 1000)] = 0
    """Processes that prepare AutoAugment's views or decode files, from 0 to 1000."""
    precision: Precision = Precision.float32
    """float32, float64, or bf16 (float32 weights under bfloat16 autocast)."""
    channels_last: bool = True
    """Store images and weights with channels last, which is faster on GPUs."""
    compile: Annotated[bool | str, allowed.OneOf(False, True, "reduce-overhead")] = False
    """Compile the network by torch.compile: false, true, or reduce-overhead (with CUDA graphs)."""
    matmul: Matmul = Matmul.tf32
    """Precision of float32 products and convolutions on CUDA devices: tf32 (10 bits, faster) or ieee (24 bits)."""
    deterministic: bool = False
    """Refuse operations whose result varies between runs, and do not try several algorithms to find the fastest."""
    threads: Annotated[int | None, allowed.THREADS] = None
    """Threads of torch on a CPU, from 1 to 1024; null for torch's default."""
    validate_every: Annotated[int, allowed.EPOCHS] = 1
    """Measure test accuracy after every so many epochs, from 0 to 1e6; 0 is only after the last."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller."""


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does with this run unless its own options say otherwise."""

    attacks: Any = "standard"
    """standard (AutoAttack), bounded, fast, plus, rand, pgd, none (accuracy only), or a list of attacks."""
    weights: Annotated[str | None, allowed.OneOf(*WEIGHTS)] = None
    """last, average or best; null takes the average if the run keeps one, else the last."""
    norm: str = "linf"
    """linf, l2 or l1."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    n: Annotated[int | None, allowed.COUNT] = None
    """Attack this many test images, balanced over classes, from 1 to 1e9; null for all."""
    batch_size: Annotated[int, allowed.BATCH] = 200
    """Images per batch, from 1 to 1e6; also for test accuracy during training."""
    tolerance: Annotated[float, allowed.Range(0, 100, above=True)] = 0.2
    """With attacks=bounded: the widest interval of robust accuracy, above 0 and at most 100 percentage points."""
    seed: Annotated[int, allowed.SEED] = 0
    """Seed of the attacks, from 0 to 4294967295."""
    channels_last: bool = False
    """Attacks search with channels last in memory: faster, other rounding."""
    fold_batch_norm: bool = False
    """Attacks search with BatchNorm folded into the convolution before it: faster, other rounding."""
    compile: bool = False
    """Attacks search on the network as torch.compile makes it: other rounding, minutes to compile."""
    precision: Annotated[str, allowed.OneOf(*PRECISIONS)] = "float32"
    """float32 or bf16: the precision in which attacks search; what they find is classified in float32."""
    mirrored: bool = False
    """With masks: average the predictions of each window and its mirror image."""
    long_side: Annotated[int | None, allowed.SIDE] = None
    """With masks: resize images so that their longer side has so many pixels, from 1 to 1e5; null for their size."""


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
    seed: Annotated[int, allowed.SEED] = 0
    """Seed of weights, batches and attacks, from 0 to 4294967295."""
    label: str | None = None
    """Name of the method in tables; null derives it from the loss."""


@dataclass_transform()
def _null_unless_given(config: type[T]) -> type[T]:
    """Make ``config`` a dataclass whose settings of ``EvaluationConfig`` are None: a default would hide the run's."""
    for item in fields(EvaluationConfig):
        kind: Any = item.type  # to mypy it may be a text; here all are types
        config.__annotations__[item.name] = kind if kind is Any else kind | None
        setattr(config, item.name, None)
    return dataclass(config)


@_null_unless_given
class EvaluateConfig(EvaluationConfig):
    """The root of ``dkl evaluate``: a ``run``, or a network of somebody else with its ``data``.

    Null values are taken from the run, or for a foreign checkpoint from the dataset and ``EvaluationConfig``.
    """

    run: str | None = None
    """Folder of a finished run of dkl train."""
    checkpoint: str | None = None
    """File with anyone's weights; needs data=, and model= unless the file holds its network."""
    data: DataConfig | None = None
    """Dataset of a checkpoint."""
    model: Any = None
    """Network of a checkpoint: one of these choices, or as network=."""
    network: str | None = None
    """package.module:function, timm:, hf-hub:, local-dir:, robustbench: or official:NAME; model= sets it."""
    arguments: dict[str, Any] = field(default_factory=any_keys)
    """Arguments of network=, such as arguments.depth=28."""
    mean: Annotated[list[float] | None, allowed.MEAN] = None
    """Channel means with which network= normalizes its input, in [0, 1]; null if it does so itself."""
    std: Annotated[list[float] | None, allowed.STD] = None
    """Channel deviations with which network= normalizes its input, in (0, 1]; null if it does so itself."""
    trust: bool = False
    """Load a checkpoint= that is a program (TorchScript, ExportedProgram), which can run any code on this machine."""
    label: str | None = None
    """Name of the method in tables; null takes the run's, or the file's name."""
    architecture: str | None = None
    """Name of a foreign network's architecture in tables; null takes the name of its model."""
    logger: Any = None
    """Where results are reported in addition to the record; null takes the run's logger, none switches it off."""
    additional_data: bool = False
    """The checkpoint was trained with additional data; the record says so."""
    corruptions: str | None = None
    """Folder of CIFAR-10-C or CIFAR-100-C: also measure accuracy on its corrupted images, without attacks."""
    fast: bool = False
    """Attacks search with channels_last=true and precision=bf16, unless these are given: for GPUs."""
    package: bool = False
    """Run AutoAttack as its authors wrote it (pyautoattack): the same flags, slower."""
    protocol: str | None = None
    """robustbench takes the images of its leaderboard, in their order: 5,000 of ImageNet, or the first n of CIFAR."""
    device: str = "auto"
    """auto (the accelerator if there is one, else the CPU), cpu, cuda or another kind."""
    devices: Annotated[int, allowed.DEVICES] = 1
    """Number of processes that share a batch, one per GPU, from 1 to 10000."""
    threads: Annotated[int | None, allowed.THREADS] = None
    """Threads of torch on a CPU, from 1 to 1024; null for torch's default."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Folders of data and results."""


def prediction_text(*, mirrored: bool, long_side: int | None) -> str:
    """How images with masks are predicted, in words, without the size of the windows."""
    return ("mirrored" if mirrored else "single") + (f", long side {long_side}" if long_side else "")
