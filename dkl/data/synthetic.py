"""Synthetic images that join the real ones: ``.npz`` files far larger than memory, read in place.

They come from a diffusion model. The published sets are those of Wang et al. 2023 (DM-Improves-AT): ``image`` uint8
(N, H, W, C) and ``label`` (N,), in one or several files.
"""

import hashlib
import math
import mmap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.errors import UserError
from dkl.storage.files import data_offset

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
        parts = [map_arrays(path, ["image", "label"]) for path in paths]
        self.images, labels = [images for images, _ in parts], []
        for path, (images, classes) in zip(paths, parts, strict=True):
            self._check(path, images, classes)
            if hasattr(mmap, "MADV_RANDOM"):  # without it the system reads far beyond each image
                assert isinstance(images.base, mmap.mmap)
                images.base.madvise(mmap.MADV_RANDOM)
            labels.append(_read_labels(path, classes, num_classes))
        self.starts = np.cumsum([0, *(len(part) for part in self.images)])
        self.labels = np.concatenate(labels)
        self.sha256 = self._fingerprint()

    def _check(self, path: Path, images: NDArray[Any], labels: NDArray[Any]) -> None:
        """Raise UserError if the arrays of a file have other dtypes or shapes."""
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


def _read_labels(path: Path, mapped: NDArray[Any], num_classes: int) -> NDArray[Any]:
    """Read the labels into the smallest unsigned integer type for ``num_classes``."""
    labels = np.empty(mapped.shape, np.min_scalar_type(num_classes - 1))
    for start in range(0, len(mapped), CHUNK):
        chunk = mapped[start : start + CHUNK]
        low, high = chunk.min(), chunk.max()
        if low < 0 or high >= num_classes:
            raise UserError(
                f"{path}: labels run from {low} to {high}, but data.num_classes={num_classes}; set "
                "data.synthetic.files to files of this dataset, or number the labels from 0"
            )
        labels[start : start + len(chunk)] = chunk
    return labels


def map_arrays(path: Path, names: Sequence[str]) -> list[np.memmap[Any, Any]]:
    """Map the arrays ``names`` of an uncompressed ``.npz`` file, so that only the pages that are read enter memory.

    Raises UserError if an array is missing or cannot be mapped.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [name for name in names if name not in members]:
                raise UserError(f"{path} has no array named {' and '.join(missing)}; it has {list(members)}")
            return [_map(path, file, archive, members[name]) for name in names]
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as an .npz of plain arrays: {error}; download or write it again"
        ) from None


def _map(path: Path, file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.memmap[Any, Any]:
    """Map the array of the zip member ``info``. Raises ValueError if that is impossible.

    An uncompressed member is its ``.npy`` file byte by byte: the array starts right after the zip's local header and
    the ``.npy`` header.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        rewritten = path.with_name(f"{path.stem}_stored.npz")
        raise UserError(
            f"{path} is compressed, so its images cannot be read in place: rewrite it uncompressed with "
            f"python -m scripts.store_npz {path} {rewritten}"
        )
    with archive.open(info) as member:  # checks the local header
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{info.filename} has .npy version {version}, only 1.0 and 2.0 are supported")
        shape, fortran, dtype = readers[version](member)
        header = member.tell()
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError(f"{info.filename} holds objects or is in column-major order")
    if info.file_size != header + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} is truncated")
    return np.memmap(path, dtype, "r", data_offset(file, info) + header, shape)
