"""Labelled image files of a set that does not fit in memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.errors import UserError


@dataclass(frozen=True, eq=False)
class Files(EncodedImages):
    """The files ``root/names[i]``, images of any sizes, and ``labels[N]``, int64; a model sees ``size``² pixels.

    Names are bytes in one array and not strings: a process that is forked off would copy those when it counts its
    references. Make them with ``Files.of``.
    """

    root: Path
    names: NDArray[np.bytes_]
    labels: Tensor
    size: int

    def __post_init__(self) -> None:
        if not len(self.names):
            raise UserError(f"{self.root} holds no images")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.names.shape:
            raise ValueError(f"labels must be int64 ({len(self.names)},), not {tuple(self.labels.shape)}")

    @classmethod
    def of(cls, root: str | Path, names: Sequence[str], labels: Sequence[int], *, size: int) -> "Files":
        """Of ``names`` relative to ``root``."""
        encoded: NDArray[Any] = np.array([os.fsencode(name) for name in names], np.bytes_)
        return cls(Path(root), encoded, torch.tensor(labels, dtype=torch.int64), size)

    def path(self, index: int) -> Path:
        """Where image ``index`` lies."""
        return self.root / os.fsdecode(self.names[index])

    def open(self, index: int) -> IO[bytes]:
        """Image ``index``, encoded."""
        return self.path(index).open("rb")

    def where(self, index: int) -> str:
        """Its path."""
        return str(self.path(index))

    def _part(self, mask: Tensor) -> "Files":
        return Files(self.root, self.names[mask.numpy()], self.labels[mask], self.size)

    def _bytes(self) -> NDArray[np.int64]:
        folder = os.open(self.root, os.O_RDONLY)
        try:  # relative to an open folder: a Path each would take four times as long
            sizes = (os.stat(name, dir_fd=folder).st_size for name in self.names.tolist())
            return np.fromiter(sizes, np.int64, len(self))
        except OSError as error:
            lost = self.root / os.fsdecode(error.filename)
            raise UserError(f"{lost} cannot be read: {error.strerror}; is the data set whole?") from None
        finally:
            os.close(folder)
