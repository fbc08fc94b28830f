"""The one training loop, and what surrounds it: optimiser, schedule, checkpoints, metrics."""

from dkl.training.metrics import objective
from dkl.training.run import train

__all__ = ["objective", "train"]
