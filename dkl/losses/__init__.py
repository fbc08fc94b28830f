"""Losses on pairs of logits: pure maths, no device, no config. ``ClassPrior`` is the one thing with state."""

from dkl.losses.distillation import DIST, DKD, JSD, KD
from dkl.losses.divergences import DKL, GKL, IKL, KL, PairLoss
from dkl.losses.modules import GKLLoss, IKLLoss
from dkl.losses.prior import ClassPrior
from dkl.losses.wmse import gap_mse, soft_cross_entropy

__all__ = [
    "DIST",
    "DKD",
    "DKL",
    "GKL",
    "IKL",
    "JSD",
    "KD",
    "KL",
    "ClassPrior",
    "GKLLoss",
    "IKLLoss",
    "PairLoss",
    "gap_mse",
    "soft_cross_entropy",
]
