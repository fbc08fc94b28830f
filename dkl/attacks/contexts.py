"""The ways to change a model's mode, each of which leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = Literal["running", "batch"]
"""Statistics BatchNorm uses during an attack: the running ones (eval mode) or the batch's."""


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Train mode inside, in which BatchNorm uses the batch's statistics and its buffers stay as they are.

    Modes and flags are put back afterwards, also when the body raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = [(module, module.track_running_stats) for module in model.modules() if isinstance(module, _BatchNorm)]
    model.train()
    for norm, _ in norms:
        norm.track_running_stats = False
    try:
        yield model
    finally:
        for norm, tracked in norms:
            norm.track_running_stats = tracked
        for module, training in modes:
            module.training = training


@contextmanager
def frozen_eval(model: nn.Module, batch_norm: BatchNorm = "running") -> Iterator[nn.Module]:
    """Eval mode and frozen parameters inside; every module's mode and parameter's flag as before afterwards.

    With ``batch_norm="batch"`` it is train mode without tracking, as DM-Improves-AT attacks. Frozen parameters spare
    the backward pass their gradients. What was set is put back also when the body raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        if batch_norm == "batch":
            with batch_statistics(model):
                yield model
        else:
            model.eval()
            yield model
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def batch_norm_momentum(model: nn.Module, momentum: float) -> Iterator[None]:
    """BatchNorm's running statistics move by ``momentum`` inside; 1 makes them the batch's."""
    before = [(module, module.momentum) for module in model.modules() if isinstance(module, _BatchNorm)]
    for module, _ in before:
        module.momentum = momentum
    try:
        yield
    finally:
        for module, value in before:
            module.momentum = value
