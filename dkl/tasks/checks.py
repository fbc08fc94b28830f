"""Checks of a task's settings before any work. Each raises UserError with the setting, its value and its range."""

import math

from torch import nn

from dkl.errors import UserError
from dkl.tasks.base import Task


def check_non_negative(where: str, **settings: float) -> None:
    """Each of ``settings`` is a finite number of at least 0; ``where`` is their place in the configuration."""
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{where}.{name}={value} must be a finite number of at least 0")


def check_positive(where: str, **settings: float) -> None:
    """Each of ``settings`` is a finite number above 0."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise UserError(f"{where}.{name}={value} must be a finite number above 0")


def check_fraction(where: str, **settings: float) -> None:
    """Each of ``settings`` is in [0, 1)."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise UserError(f"{where}.{name}={value} must be in [0, 1)")


def check_task(task: object) -> Task:
    """Return ``task`` if the training loop can use it. Raises UserError that names what is missing."""
    name = type(task).__name__
    if not isinstance(task, Task):
        raise UserError(f"task: {name} is not a task: derive it from dkl.tasks.Task and write step(batch, progress)")
    if not isinstance(getattr(task, "model", None), nn.Module):
        raise UserError(f"task: {name} has no model: set self.model in __init__, which is called with model=...")
    return task
