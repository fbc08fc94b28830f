"""Top-1 and top-5 correctness of a model's predictions."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: is the largest of ``logits[B, C]`` at the label?"""
    return logits.argmax(-1) == labels


def top5(logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B]``: is the label among the five largest of ``logits[B, C]``? C must be at least 5."""
    # Among equal logits topk may leave out the one that argmax picks. A correct top-1 prediction always counts.
    return (logits.topk(5, dim=-1).indices == labels[:, None]).any(-1) | top1(logits, labels)


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Bool ``[N]`` on the CPU: which images of ``batches`` ``model``, in eval mode, classifies correctly."""
    with frozen_eval(model):
        return torch.cat([top1(model(batch.images), batch.labels).cpu() for batch in batches])
