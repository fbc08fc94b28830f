"""Attacks of training and evaluation: PGD, ``AutoAttack``, attacks with names, and their strength per epoch."""

from dkl.attacks.autoattack.drop_in import AutoAttack
from dkl.attacks.contexts import batch_norm_momentum, batch_statistics, frozen_eval, untracked_batch_norm
from dkl.attacks.named import make_attack, margin, named_attack, top1, top5
from dkl.attacks.own import OwnAttack, OwnTrainingAttack
from dkl.attacks.pgd import (
    Objective,
    Perturb,
    gaussian_noise,
    gaussian_start,
    pgd,
    project,
    uniform_noise,
    uniform_start,
)
from dkl.attacks.training_attack import AttackStrength, TrainingAttack

__all__ = [
    "AttackStrength",
    "AutoAttack",
    "Objective",
    "OwnAttack",
    "OwnTrainingAttack",
    "Perturb",
    "TrainingAttack",
    "batch_norm_momentum",
    "batch_statistics",
    "frozen_eval",
    "gaussian_noise",
    "gaussian_start",
    "make_attack",
    "margin",
    "named_attack",
    "pgd",
    "project",
    "top1",
    "top5",
    "uniform_noise",
    "uniform_start",
    "untracked_batch_norm",
]
