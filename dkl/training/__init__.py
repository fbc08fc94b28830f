"""The one training loop, and what surrounds it: optimizer, schedules, averages, selection, checkpoints, metrics."""

import dkl.full  # noqa: F401  (names the extra if it is not installed)
from dkl.training.fit import Run
from dkl.training.state import objective

__all__ = ["Run", "objective"]
