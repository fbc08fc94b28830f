"""The roots of ``dkl train`` and ``dkl evaluate``, with what both share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from dkl.config.schema.data import DataConfig
from dkl.config.schema.evaluation import EvaluationConfig
from dkl.config.schema.training import OptimizerConfig, SelectionConfig, TrainerConfig
from dkl.validation import BATCH, COUNT, DEVICES, MEAN, SEED, SIDE, STD, THREADS, Range

TargetConfig = Mapping[str, Any]
"""A configuration with ``_target_``: which class or function to call, and its arguments."""


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
    seed: Annotated[int, SEED] = 0
    """Seed of weights, batches and attacks, from 0 to 4294967295."""
    label: str | None = None
    """Name of the method in tables; null derives it from the loss."""


# None is "not given" here: the value then comes from the run. A default would hide what the run was trained for.
@dataclass
class EvaluateConfig:
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
    """package.module:function, timm:NAME, hf-hub:USER/MODEL, local-dir:FOLDER or robustbench:NAME; model= sets it."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of network=, such as arguments.depth=28."""
    mean: Annotated[list[float] | None, MEAN] = None
    """Channel means with which network= normalizes its input, in [0, 1]; null if it does so itself."""
    std: Annotated[list[float] | None, STD] = None
    """Channel deviations with which network= normalizes its input, in (0, 1]; null if it does so itself."""
    trust: bool = False
    """Load a checkpoint= that is a program (TorchScript, ExportedProgram), which can run any code on this machine."""
    label: str | None = None
    """Name of the method in tables; null takes the run's, or the file's name."""
    logger: Any = None
    """Where results are reported in addition to the record; null takes the run's logger, none switches it off."""
    additional_data: bool = False
    """The checkpoint was trained with additional data; the record says so."""
    attacks: Any = None
    """standard (AutoAttack), bounded, fast, plus, rand, pgd, none (accuracy only), or a list of attacks."""
    corruptions: str | None = None
    """Folder of CIFAR-10-C or CIFAR-100-C: also measure accuracy on its corrupted images, without attacks."""
    package: bool = False
    """Run AutoAttack as its authors wrote it (pyautoattack): the same flags, slower."""
    weights: str | None = None
    """Which weights of a run: last, average or best."""
    norm: str | None = None
    """linf, l2 or l1."""
    eps: str | None = None
    """Radius, in pixel units of [0, 1], such as 8/255."""
    n: Annotated[int | None, COUNT] = None
    """Attack this many test images, balanced over classes, from 1 to 1e9."""
    batch_size: Annotated[int | None, BATCH] = None
    """Images per batch, from 1 to 1e6."""
    tolerance: Annotated[float | None, Range(0, 100, above=True)] = None
    """With attacks=bounded: the widest interval of robust accuracy, above 0 and at most 100 percentage points."""
    seed: Annotated[int | None, SEED] = None
    """Seed of the attacks, from 0 to 4294967295."""
    channels_last: bool | None = None
    """Attacks search with channels last in memory: faster, other rounding."""
    fold_batch_norm: bool | None = None
    """Attacks search with BatchNorm folded into the convolution before it: faster, other rounding."""
    compile: bool | None = None
    """Attacks search on the network as torch.compile makes it: other rounding, minutes to compile."""
    precision: str | None = None
    """float32 or bf16: the precision in which attacks search; what they find is classified in float32."""
    mirrored: bool | None = None
    """With masks: average the predictions of each window and its mirror image."""
    long_side: Annotated[int | None, SIDE] = None
    """With masks: resize images so that their longer side has so many pixels, from 1 to 1e5."""
    device: str = "auto"
    """auto (the accelerator if there is one, else the CPU), cpu, cuda or another kind."""
    devices: Annotated[int, DEVICES] = 1
    """Number of processes that share a batch, one per GPU, from 1 to 10000."""
    threads: Annotated[int | None, THREADS] = None
    """Threads of torch on a CPU, from 1 to 1024; null for torch's default."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Folders of data and results."""
