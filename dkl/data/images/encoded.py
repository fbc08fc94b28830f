"""Labeled images of a dataset that does not fit in memory: encoded bytes (JPEG, PNG …) that are decoded when used."""

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

from dkl.data.images.image_set import ImageSet
from dkl.data.seeding import seed_global
from dkl.data.transforms.pil_image import Center, Transform, center_crop
from dkl.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

# What Pillow raises on damaged files of the formats above.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class EncodedImages(ImageSet):
    """Images of any sizes; a model sees ``size``² pixels of each, in tests the ``center``."""

    most_compared = 500
    names: NDArray[np.bytes_]
    size: int
    center: Center

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, size, size)."""
        return (3, self.size, self.size)

    @abstractmethod
    def open(self, index: int) -> IO[bytes]:
        """Open the encoded image ``index``. Raises OSError if it cannot be read."""

    @abstractmethod
    def location(self, index: int) -> str:
        """The place of image ``index``, for error messages."""

    def content(self, index: int) -> bytes:
        """The encoded image ``index``. Raises UserError if it cannot be read."""
        try:
            with self.open(index) as file:
                return file.read()
        except OSError as error:
            raise UserError(
                f"{self.location(index)} cannot be read: {error.strerror}; check that the dataset is complete"
            ) from None

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, names, labels and the lengths of the encoded images, in hex.

        It detects images that were added, removed, relabeled, truncated or replaced. It does not detect changed pixels
        if the length stayed the same, because reading every image would take too long.
        """
        content = hashlib.sha256(str((len(self), *self.shape)).encode())
        content.update(b"\0".join(self.names.tolist()))
        content.update(self.labels.numpy().tobytes())
        content.update(self.lengths().tobytes())
        return content.hexdigest()

    def crop(self, index: int, transform: Transform, seed: int | None = None) -> NDArray[np.uint8]:
        """Decode image ``index`` and apply ``transform``: RGB pixels [size, size, 3].

        A ``seed`` seeds the global generators, from which ``transform`` draws; the caller must preserve them. Raises
        UserError if the image cannot be decoded.
        """
        try:
            with self.open(index) as file, Image.open(file) as image:
                rgb = image.convert("RGB")
        except DECODING_ERRORS as error:
            raise UserError(
                f"{self.location(index)} cannot be read as an image: {error}; download it again, or remove it"
            ) from None
        if seed is not None:
            seed_global(seed)
        return np.asarray(transform(rgb))

    def check_first(self) -> None:
        """Raise UserError if the first image cannot be decoded; the others are read when they are used."""
        self.crop(0, center_crop(self.size))

    def tensor(self) -> Tensor:
        """The center crop of every image, uint8 [N, 3, size, size], decoded at every call.

        Meant for subsets that are attacked: 1,000 images of size 224 take 150 MB, ImageNet's 50,000 take 7.5 GB.
        """
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)
        pixels, transform = images.numpy(), center_crop(self.size, self.center)

        def fill(index: int) -> None:
            pixels[index] = self.crop(index, transform).transpose(2, 0, 1)

        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(fill, index) for index in range(len(self))]:
                done.result()  # raises the error of the thread
        return images
