"""Settings of the evaluation after training."""

from dataclasses import dataclass
from typing import Annotated, Any

from dkl.validation import BATCH, COUNT, SEED, SIDE, Range

WEIGHTS = ("last", "average", "best")
"""Weights of a run that can be evaluated: of the last epoch, averaged over epochs, or of the best epoch."""


def prediction_text(*, mirrored: bool, long_side: int | None) -> str:
    """How images with masks are predicted, in words, without the size of the windows."""
    return ("mirrored" if mirrored else "single") + (f", long side {long_side}" if long_side else "")


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does with this run unless its own options say otherwise."""

    attacks: Any = "standard"
    """standard (AutoAttack), bounded, fast, plus, rand, pgd, none (accuracy only), or a list of attacks."""
    weights: str | None = None
    """last, average or best; null takes the average if the run keeps one, else the last."""
    norm: str = "linf"
    """linf, l2 or l1."""
    eps: str = "${data.eps}"
    """Radius, in pixel units of [0, 1]."""
    n: Annotated[int | None, COUNT] = None
    """Attack this many test images, balanced over classes, from 1 to 1e9; null for all."""
    batch_size: Annotated[int, BATCH] = 200
    """Images per batch, from 1 to 1e6; also for test accuracy during training."""
    tolerance: Annotated[float, Range(0, 100, above=True)] = 0.2
    """With attacks=bounded: the widest interval of robust accuracy, above 0 and at most 100 percentage points."""
    seed: Annotated[int, SEED] = 0
    """Seed of the attacks, from 0 to 4294967295."""
    channels_last: bool = False
    """Attacks search with channels last in memory: faster, other rounding."""
    fold_batch_norm: bool = False
    """Attacks search with BatchNorm folded into the convolution before it: faster, other rounding."""
    compile: bool = False
    """Attacks search on the network as torch.compile makes it: other rounding, minutes to compile."""
    precision: str = "float32"
    """float32 or bf16: the precision in which attacks search; what they find is classified in float32."""
    mirrored: bool = False
    """With masks: average the predictions of each window and its mirror image."""
    long_side: Annotated[int | None, SIDE] = None
    """With masks: resize images so that their longer side has so many pixels, from 1 to 1e5; null for their size."""
