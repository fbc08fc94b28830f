"""Decoupled KL losses: adversarial training, distillation, evaluation, tables."""

import dkl.full  # noqa: F401  (names the extra if it is not installed)
from dkl.cli.main import main

__all__ = ["main"]
