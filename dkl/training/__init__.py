"""The one training loop, and what surrounds it: optimizer, schedules, averages, selection, checkpoints, metrics."""

from dkl.training.metrics import objective
from dkl.training.run import Run

__all__ = ["Run", "objective"]
