"""Predicts whole images by overlapping windows of the size of a training crop, as semseg and APD test.

resize so that the longer side is ``long_side``  →  pad to a window  →  windows every 2/3 of their size
→  softmax, averaged with that of the mirror image  →  mean over windows  →  resize to the image  →  argmax
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.config.schema import prediction_text
from dkl.errors import UserError
from dkl.validation import SIDE, check_fields

STRIDE = 2 / 3


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` (H, W), with or without mirror images; ``long_side`` None keeps the image's own size.

    ``fill`` is the color of padding, in [0, 1]; ``batch_size`` windows are forwarded at once.
    """

    size: tuple[int, int]
    mirrored: bool
    long_side: Annotated[int | None, SIDE]
    fill: tuple[float, float, float]
    batch_size: int

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def text(self) -> str:
        """How images are predicted, in words."""
        kind = prediction_text(mirrored=self.mirrored, long_side=self.long_side)
        return f"windows {self.size[1]}x{self.size[0]}, {kind}"

    def places(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """Top and left of every window of an image that is at least as large as a window."""
        starts = []
        for side, window in zip((height, width), self.size, strict=True):
            stride = math.ceil(window * STRIDE)
            count = math.ceil((side - window) / stride) + 1
            starts.append([min(number * stride, side - window) for number in range(count)])
        for top in starts[0]:
            for left in starts[1]:
                yield top, left

    @torch.no_grad()
    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Classes int64 ``[H, W]`` of ``image[3, H, W]``, uint8 on the model's device, by ``model`` in eval mode."""
        size = image.shape[1:]
        x = image.float().div_(255)[None]
        if self.long_side is not None:
            factor = self.long_side / max(size)
            x = F.interpolate(x, size=[round(side * factor) for side in size], mode="bilinear", align_corners=False)
        inner = x.shape[2:]
        room = [max(window - side, 0) for window, side in zip(self.size, inner, strict=True)]
        before = [side // 2 for side in room]
        canvas = x.new_tensor(self.fill).view(1, 3, 1, 1).repeat(1, 1, inner[0] + room[0], inner[1] + room[1])
        cut = (slice(None), slice(None), *(slice(at, at + side) for at, side in zip(before, inner, strict=True)))
        canvas[cut] = x
        scores = self._scores(model, canvas)[cut]
        if inner != size:
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return scores[0].argmax(0)

    def _scores(self, model: nn.Module, canvas: Tensor) -> Tensor:
        """Mean probabilities ``[1, C, H, W]`` over the windows of ``canvas[1, 3, H, W]``."""
        height, width = self.size
        places = list(self.places(*canvas.shape[2:]))
        crops = torch.cat([canvas[..., top : top + height, left : left + width] for top, left in places])
        counts = canvas.new_zeros(1, 1, *canvas.shape[2:])
        total: Tensor | None = None
        for batch, where in zip(crops.split(self.batch_size), _split(places, self.batch_size), strict=True):
            found = self._probabilities(model, batch)
            if total is None:
                total = found.new_zeros(1, found.shape[1], *canvas.shape[2:])
            for window, (top, left) in zip(found, where, strict=True):
                total[0, :, top : top + height, left : left + width] += window
                counts[..., top : top + height, left : left + width] += 1
        assert total is not None
        return total / counts

    def _probabilities(self, model: nn.Module, crops: Tensor) -> Tensor:
        logits = model(crops)
        if not logits.isfinite().all():
            raise UserError(
                "the network's logits are not finite, so it has no result: check weights, normalization and precision"
            )
        found = logits.softmax(1)
        if self.mirrored:
            found = (found + model(crops.flip(3)).softmax(1).flip(3)) / 2
        return found


def _split(places: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
