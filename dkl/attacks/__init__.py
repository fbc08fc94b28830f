"""Attacks used in training and as quick checks: projected gradient descent, and when to use how much of it."""

from dkl.attacks.margin import Perturb, margin, quick_attack
from dkl.attacks.mode import attack_mode, batch_norm_momentum, batch_statistics
from dkl.attacks.pgd import gaussian_noise, gaussian_start, pgd, project, uniform_noise, uniform_start
from dkl.attacks.training import Budget, TrainingAttack

__all__ = [
    "Budget",
    "Perturb",
    "TrainingAttack",
    "attack_mode",
    "batch_norm_momentum",
    "batch_statistics",
    "gaussian_noise",
    "gaussian_start",
    "margin",
    "pgd",
    "project",
    "quick_attack",
    "uniform_noise",
    "uniform_start",
]
