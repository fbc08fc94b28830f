"""Decoupled KL losses: adversarial training, distillation, evaluation, tables."""

import dkl.full
from dkl.cli.main import main

__all__ = ["main"]
