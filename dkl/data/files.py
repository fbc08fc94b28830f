"""Labelled image files of a set that does not fit in memory."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.crops import middle_crop, read_crop
from dkl.data.imageset import ImageSet
from dkl.errors import UserError


@dataclass(frozen=True, eq=False)
class Files(ImageSet):
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

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return (3, self.size, self.size)

    def path(self, index: int) -> Path:
        """Where image ``index`` lies."""
        return self.root / os.fsdecode(self.names[index])

    def _part(self, mask: Tensor) -> "Files":
        return Files(self.root, self.names[mask.numpy()], self.labels[mask], self.size)

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, names below the root, labels and the sizes of the files, in hex.

        It finds files that were added, taken out, relabelled, cut or exchanged for others; pixels changed in a file
        whose size stayed are not seen: reading all would take longer than it is worth.
        """
        content = hashlib.sha256(str((len(self), *self.shape)).encode())
        content.update(b"\0".join(self.names.tolist()))
        content.update(self.labels.numpy().tobytes())
        content.update(self._bytes().tobytes())
        return content.hexdigest()

    def _bytes(self) -> NDArray[np.int64]:
        """The size of each file."""
        folder = os.open(self.root, os.O_RDONLY)
        try:  # relative to an open folder: a Path each would take four times as long
            sizes = (os.stat(name, dir_fd=folder).st_size for name in self.names.tolist())
            return np.fromiter(sizes, np.int64, len(self))
        except OSError as error:
            lost = self.root / os.fsdecode(error.filename)
            raise UserError(f"{lost} cannot be read: {error.strerror}; is the data set whole?") from None
        finally:
            os.close(folder)

    def tensor(self) -> Tensor:
        """The middle of every image as validation sees it, uint8 [N, 3, size, size], decoded at every call.

        For subsets that are attacked: 1,000 images of size 224 take 150 MB, ImageNet's 50,000 take 7.5 GB.
        """
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        pixels, transform = images.numpy(), middle_crop(self.size)

        def fill(index: int) -> None:
            pixels[index] = read_crop(self.path(index), transform).transpose(2, 0, 1)

        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(fill, index) for index in range(len(self))]:
                done.result()
        return images
