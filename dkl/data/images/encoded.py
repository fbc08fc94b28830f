"""Labelled images of a set that does not fit in memory, as encoded files that are decoded when they are used."""

import hashlib
import struct
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dkl.data.images.base import ImageSet
from dkl.data.seeding import seed_global
from dkl.data.transforms.crops import Transform, middle_crop
from dkl.errors import UserError

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class EncodedImages(ImageSet):
    """Images of any sizes, of which a model sees ``size``² pixels."""

    names: NDArray[np.bytes_]
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return (3, self.size, self.size)

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """Image ``index``, encoded. Raises OSError where it cannot be read."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where image ``index`` lies, for people."""

    @abstractmethod
    def _bytes(self) -> NDArray[np.int64]:
        """How long each encoded image is."""

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, names, labels and the lengths of the encoded images, in hex.

        It finds images that were added, taken out, relabelled, cut or exchanged for others; pixels changed where the
        length stayed are not seen: reading all would take longer than it is worth.
        """
        content = hashlib.sha256(str((len(self), *self.shape)).encode())
        content.update(b"\0".join(self.names.tolist()))
        content.update(self.labels.numpy().tobytes())
        content.update(self._bytes().tobytes())
        return content.hexdigest()

    def crop(self, index: int, transform: Transform, seed: int | None = None) -> NDArray[np.uint8]:
        """RGB pixels [size, size, 3] of one image; ``seed`` decides what ``transform`` draws, and starts the global
        generators, which are the caller's to lend. Raises UserError where there is no image."""
        try:
            with self.open(index) as file, Image.open(file) as image:
                rgb = image.convert("RGB")
        except DAMAGED as error:
            raise UserError(
                f"{self.where(index)} cannot be read as an image: {error}; fetch it anew, or take it out"
            ) from None
        if seed is not None:
            seed_global(seed)
        return np.asarray(transform(rgb))

    def tensor(self) -> Tensor:
        """The middle of every image as validation sees it, uint8 [N, 3, size, size], decoded at every call.

        For subsets that are attacked: 1,000 images of size 224 take 150 MB, ImageNet's 50,000 take 7.5 GB.
        """
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        pixels, transform = images.numpy(), middle_crop(self.size)

        def fill(index: int) -> None:
            pixels[index] = self.crop(index, transform).transpose(2, 0, 1)

        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(fill, index) for index in range(len(self))]:
                done.result()
        return images
