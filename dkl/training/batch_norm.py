"""BatchNorm that sees a batch in parts, as several devices would.

``nn.DataParallel`` cuts a batch into contiguous chunks. Each GPU normalizes its chunk by that chunk's statistics, and
the running statistics of the first GPU are kept. One device that does the same with the parts of its share computes
what so many devices compute. With two views per image, [basic; augmented], an even number of parts shows BatchNorm one
view at a time, and the basic view moves the running statistics.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _InParts:
    """The forward pass of a BatchNorm in train mode on ``parts`` parts of a batch; mixed into its class."""

    parts: int

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self, _BatchNorm)
        if not self.training:
            return super().forward(images)  # type: ignore[misc]
        size, larger = divmod(len(images), self.parts)
        smaller = self.parts - larger if size else 0  # of few images no part is empty
        # Unlike tensor_split, split has a backward pass that copies every part once.
        first, *others = images.split([size + 1] * larger + [size] * smaller)
        normalized = [super().forward(first)]  # type: ignore[misc]  # it alone moves the running statistics
        for part in others:
            normalized.append(F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps))
        return torch.cat(normalized)


def split_batch_norm(model: nn.Module, parts: int) -> None:
    """Let every BatchNorm of ``model`` see the images of this process in ``parts`` parts, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _InParts) and parts > 1:
            kind = type(module)
            module.__class__ = type(f"{kind.__name__}InParts", (_InParts, kind), {"parts": parts})
