"""Contexts that change a model's mode; each restores it on exit, also if the body raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = Literal["running", "batch"]
"""Statistics that BatchNorm uses during an attack: the running ones (eval mode) or the batch's."""


@contextmanager
def untracked_batch_norm(model: nn.Module) -> Iterator[nn.Module]:
    """BatchNorm's buffers stay unchanged inside; modes do not change."""
    tracked = [(module, module.track_running_stats) for module in model.modules() if isinstance(module, _BatchNorm)]
    # In train mode BatchNorm then uses the batch's statistics and passes no buffers on to be updated.
    for module, _ in tracked:
        module.track_running_stats = False
    try:
        yield model
    finally:
        for module, value in tracked:
            module.track_running_stats = value


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Train mode inside, in which BatchNorm uses the batch's statistics and its buffers stay unchanged."""
    # Each module's own mode: model.train() afterwards would also switch modules that were held in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        with untracked_batch_norm(model):
            yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen_eval(model: nn.Module, batch_norm: BatchNorm = "running") -> Iterator[nn.Module]:
    """Eval mode and frozen parameters inside.

    ``batch_norm="batch"`` uses the batch's statistics instead, without tracking, as DM-Improves-AT attacks. Parameters
    are frozen so that the backward pass to the images computes no gradients for them.
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
    """BatchNorm's running statistics move by ``momentum`` inside; 1 replaces them by the batch's."""
    before = [(module, module.momentum) for module in model.modules() if isinstance(module, _BatchNorm)]
    for module, _ in before:
        module.momentum = momentum
    try:
        yield
    finally:
        for module, value in before:
            module.momentum = value
