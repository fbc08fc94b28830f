"""Contexts that change a model's mode; each restores it on exit, also if the body raises."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = Literal["running", "batch", "train"]
"""Statistics that BatchNorm uses during an attack: the running ones (eval mode), or the batch's, which its running
statistics do not follow (``batch``) or follow (``train``)."""


@contextmanager
def _restored(objects: Iterable[Any], attribute: str, value: object = None) -> Iterator[None]:
    """Set ``attribute`` of all ``objects`` to ``value`` inside, unless that is None; each has its own again on exit."""
    # Each its own: model.train() afterwards would also switch modules that were held in eval mode.
    before = [(each, getattr(each, attribute)) for each in objects]
    try:
        for each, _ in before if value is not None else ():
            setattr(each, attribute, value)
        yield
    finally:
        for each, own in before:
            setattr(each, attribute, own)


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def untracked_batch_norm(model: nn.Module) -> Iterator[nn.Module]:
    """BatchNorm's buffers stay unchanged inside; modes do not change."""
    # In train mode BatchNorm then uses the batch's statistics and passes no buffers on to be updated.
    with _restored(_batch_norms(model), "track_running_stats", value=False):
        yield model


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Train mode inside, in which BatchNorm uses the batch's statistics and its buffers stay unchanged."""
    with _restored(model.modules(), "training"), untracked_batch_norm(model):
        model.train()
        yield model


@contextmanager
def frozen_eval(model: nn.Module, batch_norm: BatchNorm = "running") -> Iterator[nn.Module]:
    """Eval mode and frozen parameters inside.

    ``batch_norm="batch"`` uses the batch's statistics instead, without tracking, as DM-Improves-AT attacks; ``"train"``
    is train mode, as ARD attacks. Parameters are frozen so that the backward pass to the images computes no gradients
    for them.
    """
    with _restored(model.parameters(), "requires_grad", value=False), _restored(model.modules(), "training"):
        if batch_norm == "batch":
            with batch_statistics(model):
                yield model
        else:
            model.train() if batch_norm == "train" else model.eval()
            yield model


@contextmanager
def batch_norm_momentum(model: nn.Module, momentum: float) -> Iterator[None]:
    """BatchNorm's running statistics move by ``momentum`` inside; 1 replaces them by the batch's."""
    with _restored(_batch_norms(model), "momentum", momentum):
        yield
