"""Evaluates networks that label pixels: predicts whole images by windows, and counts the pixels of every class.

``Windows`` are overlapping and of the size of a training crop, as semseg and APD test:

resize so that the longer side is ``long_side``  →  pad to a window  →  windows every 2/3 of their size
→  softmax, averaged with that of the mirror image  →  mean over windows  →  resize to the image  →  argmax

Every process counts its share of the images and writes its own file after each batch of images. The state is the union
of all files, however many processes wrote them.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.config.schema import prediction_text
from dkl.console import bar
from dkl.data import SegmentationSet
from dkl.errors import UserError
from dkl.runtime.distributed import gather, rank, world
from dkl.storage.files import load_arrays, save_arrays
from dkl.tasks.segmentation import count_pixels
from dkl.validation import SIDE, check_fields

STRIDE = 2 / 3
SAVE_EVERY = 10  # images


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
        counts = canvas.new_zeros(1, 1, *canvas.shape[2:])
        total: Tensor | None = None
        for start in range(0, len(places), self.batch_size):
            batch = places[start : start + self.batch_size]
            crops = torch.cat([canvas[..., top : top + height, left : left + width] for top, left in batch])
            probabilities = self._probabilities(model, crops)
            if total is None:
                total = probabilities.new_zeros(1, probabilities.shape[1], *canvas.shape[2:])
            for window, (top, left) in zip(probabilities, batch, strict=True):
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
        if not self.mirrored:
            return logits.softmax(1)
        return (logits.softmax(1) + model(crops.flip(3)).softmax(1).flip(3)) / 2


class PixelCounts(NamedTuple):
    """int64 ``[N, C]`` each: pixels predicted right, true and predicted; ``seconds[N]`` are NaN until done."""

    hits: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    seconds: NDArray[np.float64]


def _merge(parts: Iterable[PixelCounts]) -> PixelCounts:
    """Combine the counts of several files or processes: what one has not done is 0 or NaN there."""
    hits, true, predicted, seconds = zip(*parts, strict=True)
    return PixelCounts(
        np.maximum.reduce(hits), np.maximum.reduce(true), np.maximum.reduce(predicted), np.fmax.reduce(seconds)
    )


def count_test_pixels(
    model: nn.Module, test: SegmentationSet, windows: Windows, *, device: torch.device, folder: Path
) -> PixelCounts:
    """Count the pixels of all images of ``test``; resume from ``folder``.

    All processes of a group call this with the same arguments and get the same counts.
    """
    pixels = test.pixels
    none = np.zeros((len(test), pixels.num_classes), np.int64)
    none_done = PixelCounts(none, none, none, np.full(len(test), np.nan))
    saved = sorted(folder.glob("*.npz"))
    # No process writes before all have read: gather waits for every process.
    counts = _merge(gather(_merge([none_done, *(PixelCounts(**load_arrays(path)) for path in saved)])))
    share = np.flatnonzero(np.isnan(counts.seconds))[rank() :: world()]
    done = len(test) - int(np.isnan(counts.seconds).sum())
    path = folder / f"{rank()}.npz"
    with frozen_eval(model), bar("test images", done + len(share), done) as progress:
        for place, index in enumerate(share.tolist(), 1):
            started = time.perf_counter()
            image, mask = test.pair(index)
            of_image = count_pixels(
                windows.predict(model, image.to(device)),
                mask.to(device).long(),
                num_classes=pixels.num_classes,
                ignore_index=pixels.ignore_index,
            )
            for whole, part in zip(counts[:3], of_image, strict=True):
                whole[index] = part.cpu().numpy()
            counts.seconds[index] = time.perf_counter() - started
            progress.advance()
            if place % SAVE_EVERY == 0 or place == len(share):
                save_arrays(counts._asdict(), path)
    return _merge(gather(counts))
