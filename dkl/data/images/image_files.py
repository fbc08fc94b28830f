"""Labeled image files that are decoded when used."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.data.transforms.pil_image import USUAL_CENTER, Center
from dkl.errors import UserError


@dataclass(frozen=True, eq=False)
class ImageFiles(EncodedImages):
    """The files ``root/names[i]`` with ``labels[N]``, int64; a model sees ``size``² pixels. Made by ``from_names``.

    Names are bytes in one array instead of a list of strings: forked workers would copy each string's memory page,
    because reading a string changes its reference count.
    """

    root: Path
    names: NDArray[np.bytes_]
    labels: Tensor
    size: int
    center: Center = USUAL_CENTER

    def __post_init__(self) -> None:
        if not len(self.names):
            raise UserError(f"{self.root} holds no images: check data.source")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.names.shape:
            raise ValueError(f"labels must be int64 ({len(self.names)},), not {tuple(self.labels.shape)}")

    @classmethod
    def from_names(cls, root: str | Path, names: Sequence[str], labels: Sequence[int], *, size: int) -> "ImageFiles":
        """Build the set from ``names`` relative to ``root``. Raises UserError if there are none."""
        encoded: NDArray[Any] = np.array([os.fsencode(name) for name in names], np.bytes_)
        return cls(Path(root), encoded, torch.tensor(labels, dtype=torch.int64), size)

    def path(self, index: int) -> Path:
        """Path of image ``index``."""
        return self.root / os.fsdecode(self.names[index])

    def open(self, index: int) -> IO[bytes]:
        """Open the file of image ``index``."""
        return self.path(index).open("rb")

    def location(self, index: int) -> str:
        """Path of image ``index``."""
        return str(self.path(index))

    def _select(self, mask: Tensor) -> "ImageFiles":
        return replace(self, names=self.names[mask.numpy()], labels=self.labels[mask])

    def lengths(self) -> NDArray[np.int64]:
        """Length of each encoded image in bytes."""
        folder = os.open(self.root, os.O_RDONLY)
        try:  # stat relative to an open folder is four times as fast as building a Path per file
            sizes = (os.stat(name, dir_fd=folder).st_size for name in self.names.tolist())
            return np.fromiter(sizes, np.int64, len(self))
        except OSError as error:
            lost = self.root / os.fsdecode(error.filename)
            raise UserError(f"{lost} cannot be read: {error.strerror}; check that the dataset is complete") from None
        finally:
            os.close(folder)
