"""Attacks used in training and as quick checks: projected gradient descent, and when to use how much of it."""

from dkl.attacks.mode import attack_mode
from dkl.attacks.pgd import gaussian_start, pgd, project, uniform_start
from dkl.attacks.training import Budget, TrainingAttack

__all__ = [
    "Budget",
    "TrainingAttack",
    "attack_mode",
    "gaussian_start",
    "pgd",
    "project",
    "uniform_start",
]
