"""The network on which attacks search: the evaluated one, or a faster one that rounds differently.

Whatever the search finds is classified by the evaluated network itself, unchanged and in float32. A faster search may
miss an adversarial image or find another one. An image never counts as misclassified because of the other rounding.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dkl.errors import UserError

_SIZES = 3
"""Batch sizes that are compiled: all images of a batch, half and a quarter of them."""


class _ToChannelsLast(torch.autograd.Function):
    """The same images with the channels last in memory; their gradient has them first, as attacks expect."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


class SearchModel(nn.Module):
    """``network`` with its input ``[B, C, H, W]`` and output ``[B, classes]`` converted for it."""

    def __init__(self, network: nn.Module, *, channels_last: bool, padded: int | None, low_precision: bool) -> None:
        super().__init__()
        self.network, self.channels_last = network, channels_last
        self.padded, self.low_precision = padded, low_precision

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        if self.padded and count:
            # Few sizes, because every new one would be compiled again.
            sizes = sorted(-(-self.padded // 2**power) for power in range(_SIZES))
            size = next((size for size in sizes if size >= count), count)
            x = torch.cat([x, x[:1].expand(size - count, *x.shape[1:])])
        if self.channels_last:
            x = _ToChannelsLast.apply(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.low_precision):
            logits: Tensor = self.network(x)
        return logits[:count].float()


def _folded(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BatchNorm after a convolution is part of its weights."""
    from torch.fx.experimental.optimization import fuse  # here, because few need it

    try:
        return fuse(copy.deepcopy(model).eval())
    except Exception as error:  # symbolic tracing raises many kinds
        reason = str(error).partition("\n")[0]
        raise UserError(f"fold_batch_norm=true cannot trace this network ({reason}): leave it out") from None


def search_model(model: nn.Module, search: Mapping[str, bool | str], batch_size: int) -> nn.Module:
    """Return the network that attacks search on, with the settings ``search`` that differ from their defaults.

    Without any it is ``model`` itself. ``fold_batch_norm`` multiplies BatchNorm into the convolution before it,
    ``channels_last`` and ``compile`` are torch's, and ``precision`` ``bf16`` uses autocast. Raises UserError if the
    network cannot be folded.
    """
    if not search:
        return model
    network = _folded(model) if search.get("fold_batch_norm") else copy.deepcopy(model)
    network = network.eval().requires_grad_(False)
    if search.get("channels_last"):
        network = network.to(memory_format=torch.channels_last)
    if search.get("compile"):
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]  # a module again
    return SearchModel(
        network,
        channels_last=bool(search.get("channels_last")),
        padded=batch_size if search.get("compile") else None,
        low_precision=search.get("precision") == "bf16",
    )
