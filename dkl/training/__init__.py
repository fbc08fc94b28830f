"""The one training loop, and what surrounds it: optimizer, schedules, averages, selection, checkpoints, metrics."""

import dkl.full
from dkl.training.fit import Run
from dkl.training.state import objective

__all__ = ["Run", "objective"]
