"""Optimizer, selection of an epoch, and the training loop."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from dkl.validation import BATCH, DEVICES, EPOCHS, RATE, SEED, THREADS, Range


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
    """torch's SGD, or timm's LAMB or AdamW."""

    sgd = "sgd"
    lamb = "lamb"
    adamw = "adamw"


@dataclass
class OptimizerConfig:
    """The optimizer. Its rate over the epochs is the group ``schedule``."""

    name: OptimizerName = OptimizerName.sgd
    """sgd, lamb or adamw."""
    lr: Annotated[float, RATE] = 0.1
    """Peak learning rate, from 0 to 1000."""
    momentum: Annotated[float, Range(0, 1, below=True, usual=(0, 0.99))] = 0.9
    """Momentum of sgd, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum; sgd only."""
    weight_decay: Annotated[float, Range(0, 1000, usual=(0, 0.5))] = 5e-4
    """L2 penalty of sgd, decoupled decay of lamb and adamw, from 0 to 1000."""
    no_decay: list[str] = field(default_factory=list)
    """Spare parameters whose name contains one of these from weight decay."""
    decay_vectors: bool = True
    """Decay biases and normalization scales too."""
    faster: list[str] = field(default_factory=list)
    """Names of parts whose rate is faster_by times the rate: parameters that start with one of these."""
    faster_by: Annotated[float, Range(0, 1000, above=True, usual=(0, 100))] = 10.0
    """Factor of the rate of the parts in faster, above 0 and at most 1000."""
    layer_decay: Annotated[float | None, Range(0, 1, above=True)] = None
    """Factor from each layer's rate to that of the layer before it, in (0, 1]; null for one rate."""


@dataclass
class SelectionConfig:
    """Robust accuracy during training, on held-out training images; the best epoch is kept as ``best.pt``."""

    holdout: Annotated[int, Range(0, 1e9)] = 0
    """Hold out this many training images, from 0 to 1e9, but at most a quarter; 0 switches selection off."""
    balanced: bool = True
    """Hold out as many images of every class; false: the first training images, as DM-Improves-AT does."""
    every: Annotated[int, EPOCHS] = 0
    """Measure after every so many epochs, from 0 to 1e6; 0 switches selection off."""
    attack: str = "pgd-20"
    """pgd-K or cw-K: K steps of eps/4."""
    norm: str = "linf"
    """linf or l2."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    seed: Annotated[int, SEED] = 0
    """Seed of the attack's start, from 0 to 4294967295."""


@dataclass
class TrainerConfig:
    """Epochs, batch size, devices and precision."""

    epochs: Annotated[int, Range(1, 1e6)] = 20
    """Number of epochs, from 1 to 1e6."""
    batch_size: Annotated[int, BATCH] = 128
    """Images per step on all devices together, from 1 to 1e6; the labeled ones in semi-supervised training."""
    steps_per_epoch: Annotated[int | None, Range(1, 1e6)] = None
    """With data.labels_per_class: steps per epoch, in endless shuffled passes, from 1 to 1e6; null for one pass."""
    initial_weights: str | None = None
    """File with weights to start from, all but the classifier's; null starts at random."""
    accumulate: Annotated[int, BATCH] = 1
    """Compute each device's share of a batch in this many parts to save memory, from 1 to 1e6."""
    device: str = "auto"
    """auto (the accelerator if there is one, else the CPU), cpu, cuda or another kind."""
    devices: Annotated[int, DEVICES] = 1
    """Number of processes that share a batch, one per GPU, from 1 to 10000."""
    sync_batchnorm: bool = False
    """Share BatchNorm's statistics over devices; by default each sees its own part, as in the official code."""
    batch_norm_share: Annotated[int | None, DEVICES] = None
    """Equal parts in which BatchNorm sees a batch, a multiple of trainer.devices, from 1 to 10000; null for as many."""
    workers: Annotated[int, Range(0, 1000)] = 0
    """Processes that prepare AutoAugment's views or decode files, from 0 to 1000."""
    precision: Precision = Precision.float32
    """float32, float64, or bf16 (float32 weights under bfloat16 autocast)."""
    channels_last: bool = True
    """Store images and weights with channels last, which is faster on GPUs."""
    compile: bool | str = False
    """Compile the network by torch.compile: false, true, or reduce-overhead (with CUDA graphs)."""
    matmul: Matmul = Matmul.tf32
    """Precision of float32 products and convolutions on CUDA devices: tf32 (10 bits, faster) or ieee (24 bits)."""
    deterministic: bool = False
    """Refuse operations whose result varies between runs, and do not try several algorithms to find the fastest."""
    threads: Annotated[int | None, THREADS] = None
    """Threads of torch on a CPU, from 1 to 1024; null for torch's default."""
    validate_every: Annotated[int, EPOCHS] = 1
    """Measure test accuracy after every so many epochs, from 0 to 1e6; 0 is only after the last."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller."""
