"""Losses on pairs of logits: pure math without devices or configuration. Only ``ClassPrior`` has state.

Needs torch and numpy only. ``dkl.losses.base`` describes what a loss must provide, with a complete example.
"""

from dkl.losses.base import (
    BaseLoss,
    BatchNormalized,
    ClassPrior,
    PairLoss,
    RowLoss,
    Weighting,
    check_pair_loss,
    wanted_arguments,
)
from dkl.losses.distillation import DIST, DKD, JSD, KD, ProbabilityMSE, PseudoLabelCE, SoftCE
from dkl.losses.divergences import DKL, GKL, IKL, KL, gradient_norms, split_terms
from dkl.losses.modules import GKLLoss, IKLLoss
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
    "BaseLoss",
    "BatchNormalized",
    "ClassPrior",
    "GKLLoss",
    "IKLLoss",
    "PairLoss",
    "ProbabilityMSE",
    "PseudoLabelCE",
    "RowLoss",
    "SoftCE",
    "Weighting",
    "check_pair_loss",
    "gap_mse",
    "gradient_norms",
    "soft_cross_entropy",
    "split_terms",
    "wanted_arguments",
]
