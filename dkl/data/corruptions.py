"""Test images under common corruptions (Hendrycks and Dietterich 2019), in the files of CIFAR-10-C and CIFAR-100-C.

A folder holds one ``<corruption>.npy`` per corruption, uint8 ``[5 N, H, W, C]``: the N test images in the severities 1
to 5, one severity after the other. ``labels.npy`` holds their labels ``[5 N]``.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dkl.data.images import Images
from dkl.data.sources import images_from_arrays
from dkl.errors import UserError, shortened

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The fifteen corruptions of the benchmark. Other files in the folder, its four extra corruptions, are not read."""

SEVERITIES = 5


def _map(path: Path) -> NDArray[Any]:
    """The array in the file ``path``, mapped. Raises UserError if the file cannot be read as an array."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an .npy array: {error}; download it again") from None


@dataclass(frozen=True)
class Corruptions:
    """The corrupted images in ``folder``; a network sees images of ``shape`` (C, H, W).

    Raises UserError if the folder or one of its files is missing, damaged, or of another shape.
    """

    folder: Path
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_corruptions(self.folder)
        count = len(self._labels)
        usable = self._labels.ndim == 1 and self._labels.dtype.kind in "iu"
        if not usable or not count or count % SEVERITIES or self._labels.min() < 0:
            raise UserError(
                f"{self.folder / 'labels.npy'} must hold the class of each image from 0, of all test images in "
                f"{SEVERITIES} severities, not {self._labels.dtype} {self._labels.shape}; download it again"
            )
        channels, *sides = self.shape
        expected = (count, *sides, channels)
        for name in CORRUPTIONS:
            array = _map(self._path(name))
            if array.dtype != np.uint8 or array.shape != expected:
                raise UserError(
                    f"{self._path(name)} must be uint8 {expected}, one image of the data's size per label, not "
                    f"{array.dtype} {array.shape}; download it again"
                )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    @cached_property
    def _labels(self) -> NDArray[Any]:
        return _map(self._path("labels"))

    @property
    def num_classes(self) -> int:
        """The smallest number of classes that the labels allow."""
        return int(self._labels.max()) + 1

    @cached_property
    def sha256(self) -> str:
        """Hash of all images and labels, in hex."""
        content = hashlib.sha256()
        for name in ("labels", *CORRUPTIONS):
            with self._path(name).open("rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
        return content.hexdigest()

    def read(self, name: str, n: int | None = None) -> Images:
        """The images of a corruption in all severities, one after the other; ``n`` of each, balanced over classes.

        Raises UserError if there are fewer than ``n``.
        """
        images, count = _map(self._path(name)), len(self._labels)
        parts = [slice(start, start + count // SEVERITIES) for start in range(0, count, count // SEVERITIES)]
        each = [images_from_arrays(np.array(images[part]), self._labels[part], name).balanced(n) for part in parts]
        pixels = torch.cat([severity.images for severity in each])
        return Images(pixels, torch.cat([severity.labels for severity in each]))


def check_corruptions(folder: Path) -> None:
    """Raise UserError if ``folder`` does not have the files of a folder of corruptions."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {shortened(folder)}: give corruptions= the unpacked folder of CIFAR-10-C")
    missing = [f"{name}.npy" for name in (*CORRUPTIONS, "labels") if not (folder / f"{name}.npy").is_file()]
    if missing:
        more = f" and {len(missing) - 1} other files" if len(missing) > 1 else ""
        raise UserError(f"{shortened(folder)} lacks {missing[0]}{more}: unpack the whole archive of CIFAR-10-C")
