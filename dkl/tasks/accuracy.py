"""Which images a model classifies right, and for which the right class is among its five likeliest."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: whether the highest of ``logits[B, C]`` is that of the label."""
    return logits.argmax(-1) == labels


def top5(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: whether the label's is among the five highest of ``logits[B, C]``; C is at least 5.

    Logits that tie may leave the first of them out of five; what is right at the first guess counts all the same.
    """
    return (logits.topk(5, dim=-1).indices == labels[:, None]).any(-1) | top1(logits, labels)


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Bool ``[N]`` on the CPU: whether ``model``, in eval mode, gets each image of ``batches`` right."""
    with frozen_eval(model):
        return torch.cat([top1(model(batch.images), batch.labels).cpu() for batch in batches])
