"""The pixels of every test image per class: predicted right, true and predicted. Saved, resumed and shared.

Every process counts its share of the images and writes its own file after each batch of images. The state is the union
of all files, however many processes wrote them.
"""

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dkl.attacks import frozen_eval
from dkl.console import bar
from dkl.data import SegmentationSet
from dkl.errors import UserError
from dkl.evaluation.segmentation.windows import Windows
from dkl.runtime.distributed import gather, rank, world
from dkl.storage.files import damage, write_atomically
from dkl.tasks.segmentation import count_pixels

SAVE_EVERY = 10  # images


@dataclass(frozen=True)
class PixelCounts:
    """int64 ``[N, C]`` each: pixels predicted right, true and predicted; ``seconds[N]`` are NaN until done."""

    hits: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @classmethod
    def begin(cls, images: int, classes: int) -> "PixelCounts":
        """Counts of which none is done."""
        hits, true, predicted = (np.zeros((images, classes), np.int64) for _ in range(3))
        return cls(hits, true, predicted, np.full(images, np.nan))

    def __or__(self, other: "PixelCounts") -> "PixelCounts":
        """Combine the counts of two processes: what one has not done is 0 or NaN there."""
        hits, true, predicted = (np.maximum(*pair) for pair in zip(self.arrays[:3], other.arrays[:3], strict=True))
        return PixelCounts(hits, true, predicted, np.fmax(self.seconds, other.seconds))

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """All arrays, in the order of the fields."""
        return self.hits, self.true, self.predicted, self.seconds

    def save(self, path: Path) -> None:
        """Write everything to ``path`` atomically."""
        content = io.BytesIO()  # numpy seeks in what it writes, so the archive is built in memory first
        np.savez(content, hits=self.hits, true=self.true, predicted=self.predicted, seconds=self.seconds)
        write_atomically(path, lambda file: file.write(content.getvalue()))


def _load(path: Path) -> PixelCounts:
    if why := damage(path):
        raise UserError(
            f"{path} is damaged ({why}): delete {path.parent}, and the same command evaluates from the start"
        )
    with np.load(path, allow_pickle=False) as content:
        return PixelCounts(*(content[name] for name in ("hits", "true", "predicted", "seconds")))


def _merge(start: PixelCounts, parts: Iterable[PixelCounts]) -> PixelCounts:
    for part in parts:
        start = start | part
    return start


def count_test_pixels(
    model: nn.Module, test: SegmentationSet, windows: Windows, *, device: torch.device, folder: Path
) -> PixelCounts:
    """Count the pixels of all images of ``test``; resume from ``folder``.

    All processes of a group call this with the same arguments and get the same counts.
    """
    pixels = test.pixels
    empty = PixelCounts.begin(len(test), pixels.num_classes)
    # No process writes before all have read: gather waits for every process.
    counts = _merge(empty, gather(_merge(empty, map(_load, sorted(folder.glob("*.npz"))))))
    own = np.flatnonzero(np.isnan(counts.seconds))[rank() :: world()]
    done = len(test) - int(np.isnan(counts.seconds).sum())
    path = folder / f"{rank()}.npz"
    with frozen_eval(model), bar("test images", done + len(own), done) as progress:
        for place, index in enumerate(own.tolist(), 1):
            started = time.perf_counter()
            image, mask = test.pair(index)
            found = count_pixels(
                windows.predict(model, image.to(device)),
                mask.to(device).long(),
                num_classes=pixels.num_classes,
                ignore_index=pixels.ignore_index,
            )
            for whole, part in zip(counts.arrays[:3], found, strict=True):
                whole[index] = part.cpu().numpy()
            counts.seconds[index] = time.perf_counter() - started
            progress.advance()
            if place % SAVE_EVERY == 0 or place == len(own):
                counts.save(path)
    return _merge(empty, gather(counts))
