"""Synthetic images that join the real ones: ``.npz`` files far larger than memory, read in place.

They come from a diffusion model. The published sets are those of Wang et al. 2023 (DM-Improves-AT): ``image`` uint8
(N, H, W, C) and ``label`` (N,), in one or several files.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.npz_arrays import ArrayInFile, locate_arrays
from dkl.errors import UserError

CHUNK = 1 << 20  # labels read at a time
SAMPLE = 1024  # images that the hash covers

PUBLISHED = "https://huggingface.co/datasets/P2333/DM-Improves-AT"


class SyntheticImages:
    """The images of ``files``, concatenated. Pixels are mapped; labels are in memory, one byte each up to 256 classes.

    Raises UserError if a file is missing, compressed, or does not hold images of ``shape`` (C, H, W) and labels below
    ``num_classes``.
    """

    def __init__(self, files: Sequence[str | Path], *, shape: Sequence[int], num_classes: int) -> None:
        paths = [Path(file) for file in files]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise UserError(
                f"synthetic images are missing: {', '.join(missing)}. Expected are .npz files with image uint8 "
                f"(N, H, W, C) and label (N,); the published ones are at {PUBLISHED} (folders cifar10 and cifar100). "
                "Put them there, or set DKL_DATA_DIR or data.synthetic.files"
            )
        self.shape = tuple(shape)
        parts = [self._locate(path) for path in paths]
        self.images = [images.map() for images, _ in parts]
        self.starts = np.cumsum([0, *(len(part) for part in self.images)])
        self.labels = np.concatenate([_read_labels(labels, num_classes) for _, labels in parts])
        self.sha256 = self._fingerprint()

    def _locate(self, path: Path) -> tuple[ArrayInFile, ArrayInFile]:
        """Find image and label in one file, and check their dtypes and shapes."""
        images, labels = locate_arrays(path, ["image", "label"])
        channels, height, width = self.shape
        if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
            raise UserError(
                f"{path}: image must be uint8 (N, {height}, {width}, {channels}) for data.shape={list(self.shape)}, "
                f"not {images.dtype} {images.shape}"
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or not images.shape[0]:
            raise UserError(
                f"{path}: label must be {images.shape[0]} integers, at least one, not {labels.dtype} {labels.shape}"
            )
        return images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [n, C, H, W] and labels int64 [n] at ``index[n]``."""
        places = index.numpy()
        order = places.argsort()  # read in file order, for the disk's sake
        cuts = np.searchsorted(places[order], self.starts)
        # places[order[cuts[p] : cuts[p + 1]]] are those in file p.
        pixels = np.empty((len(places), *self.images[0].shape[1:]), np.uint8)
        for part, start, low, high in zip(self.images, self.starts, cuts, cuts[1:], strict=False):
            pixels[order[low:high]] = part[places[order[low:high]] - start]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(self.labels[places].astype(np.int64))

    def _fingerprint(self) -> str:
        """Hash of shape, file lengths, all labels and 1,024 evenly spaced images, in hex.

        It identifies the set, and detects exchanged, truncated or reordered files within seconds. It does not detect
        a changed pixel in the other images, because reading 154 GB would take too long.
        """
        content = hashlib.sha256(str((self.shape, np.diff(self.starts).tolist())).encode())
        content.update(self.labels.tobytes())
        sample = np.linspace(0, len(self) - 1, min(SAMPLE, len(self))).astype(np.int64)
        pixels, _ = self.take(torch.from_numpy(sample))
        content.update(pixels.numpy().tobytes())
        return content.hexdigest()


def _read_labels(array: ArrayInFile, num_classes: int) -> NDArray[Any]:
    """Read the labels into the smallest unsigned integer type for ``num_classes``."""
    labels = np.empty(array.shape, np.min_scalar_type(num_classes - 1))
    done = 0
    for chunk in array.chunks(CHUNK):
        low, high = chunk.min(), chunk.max()
        if low < 0 or high >= num_classes:
            raise UserError(
                f"{array.path}: labels run from {low} to {high}, but data.num_classes={num_classes}; set "
                "data.synthetic.files to files of this dataset, or number the labels from 0"
            )
        labels[done : done + len(chunk)] = chunk
        done += len(chunk)
    return labels
