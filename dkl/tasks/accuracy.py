"""Which images a model classifies right."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dkl.attacks import attack_mode
from dkl.data import Batch


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Bool ``[N]`` on the CPU: whether ``model``, in eval mode, gets each image of ``batches`` right."""
    with attack_mode(model):
        return torch.cat([(model(batch.images).argmax(-1) == batch.labels).cpu() for batch in batches])
