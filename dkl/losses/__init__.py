"""Losses on pairs of logits: pure math without devices or configuration. Only ``ClassPrior`` has state.

Needs torch and numpy only. ``dkl.losses.base`` describes what a loss must provide, with a complete example.
"""

from dkl.losses.base import (
    BaseLoss,
    BatchNormalized,
    ClassComparing,
    ClassPrior,
    PairLoss,
    RowLoss,
    Scheduled,
    WeightedSum,
    Weighting,
    check_pair_loss,
    observed_terms,
    standardized,
    wanted_arguments,
)
from dkl.losses.distillation import (
    ABKD,
    DIST,
    DKD,
    JSD,
    KD,
    TTM,
    WTTM,
    NormKD,
    ProbabilityMSE,
    PseudoLabelCE,
    SoftCE,
)
from dkl.losses.divergences import DKL, GKL, IKL, KL, gradient_norms, split_terms
from dkl.losses.modules import GKLLoss, IKLLoss
from dkl.losses.transport import WKD, classifier_distances, feature_distances
from dkl.losses.wmse import gap_mse, soft_cross_entropy

__all__ = [
    "ABKD",
    "DIST",
    "DKD",
    "DKL",
    "GKL",
    "IKL",
    "JSD",
    "KD",
    "KL",
    "TTM",
    "WKD",
    "WTTM",
    "BaseLoss",
    "BatchNormalized",
    "ClassComparing",
    "ClassPrior",
    "GKLLoss",
    "IKLLoss",
    "NormKD",
    "PairLoss",
    "ProbabilityMSE",
    "PseudoLabelCE",
    "RowLoss",
    "Scheduled",
    "SoftCE",
    "WeightedSum",
    "Weighting",
    "check_pair_loss",
    "classifier_distances",
    "feature_distances",
    "gap_mse",
    "gradient_norms",
    "observed_terms",
    "soft_cross_entropy",
    "split_terms",
    "standardized",
    "wanted_arguments",
]
