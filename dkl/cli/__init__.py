"""Decoupled KL losses: adversarial training, distillation, evaluation, tables."""

from dkl.cli.main import main

__all__ = ["main"]
