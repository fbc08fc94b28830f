"""The check of a task before any work."""

import inspect

from torch import nn

from dkl.errors import UserError
from dkl.tasks.base import Task


def check_task(task: object) -> Task:
    """Return ``task`` if the training loop can use it. Raises UserError that names what is missing."""
    name = type(task).__name__
    if not isinstance(task, Task):
        raise UserError(f"task: {name} is not a task: derive it from dkl.tasks.Task and write step(batch, progress)")
    if not isinstance(getattr(task, "model", None), nn.Module):
        raise UserError(f"task: {name} has no model: set self.model in __init__, which is called with model=...")
    if inspect.isgeneratorfunction(type(task).step):
        raise UserError(f"task: {name}.step returns a generator: decorate it with @contextmanager")
    return task
