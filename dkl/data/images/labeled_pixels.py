"""Images with a label for every pixel: pairs of files, or arrays in memory."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dkl.data.images.encoded import DECODING_ERRORS
from dkl.data.images.image_set import ImageSet
from dkl.errors import UserError
from dkl.validation import Range, check_fields


class Pair(NamedTuple):
    """``image[3, H, W]``, uint8, and ``mask[H, W]``, int32: the class of each pixel, or the ignore value."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class PixelLabels:
    """What the masks of a dataset mean.

    There are ``num_classes`` classes from 0; ``ignore_index`` marks pixels that do not count. With ``first_class`` 1,
    files number the classes from 1 and 0 is ignored, as in ADE20K. ``fill`` is the color around an image, in [0, 255].
    """

    num_classes: int
    ignore_index: int
    first_class: Annotated[int, Range(0, 1)] = 0
    fill: tuple[int, int, int] = (128, 128, 128)

    def __post_init__(self) -> None:
        check_fields(self, "data.source")
        if 0 <= self.ignore_index < self.num_classes:
            raise UserError(
                f"data.ignore_index={self.ignore_index} is one of the {self.num_classes} classes: give a value that is "
                "none, such as 255"
            )

    def read(self, values: NDArray[np.integer], where: str) -> Tensor:
        """The mask that a file at ``where`` holds. Raises UserError if it has a value that is no class."""
        mask = values.astype(np.int32)
        if self.first_class:
            mask = np.where(mask == 0, self.ignore_index, mask - 1)
        wrong = (mask < 0) | ((mask >= self.num_classes) & (mask != self.ignore_index))
        if wrong.any():
            raise UserError(
                f"{where} has the value {int(values[wrong][0])}, but classes are {self.first_class} to "
                f"{self.num_classes - 1 + self.first_class} and {0 if self.first_class else self.ignore_index} is "
                "ignored: set data.num_classes and data.ignore_index to those of the masks, or repair the file"
            )
        return torch.from_numpy(mask)


class SegmentationSet(ImageSet):
    """Images with masks; ``size`` (H, W) is what a network sees in training. Their ``labels`` are one class, 0.

    So a subset is the first images, in order.
    """

    pixels: PixelLabels
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, H, W) of a training crop."""
        return (3, *self.size)

    @abstractmethod
    def pair(self, index: int) -> Pair:
        """Image and mask ``index``, of one size. Raises UserError, with the file's name, if they are broken."""

    @property
    @abstractmethod
    def largest(self) -> tuple[int, int]:
        """The largest height and the largest width of all images."""

    def tensor(self) -> Tensor:
        """Raise UserError: attacks need images of one size with one label each."""
        raise UserError("images with a label per pixel cannot be attacked: leave attacks out, or give attacks=none")


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationArrays(SegmentationSet):
    """``images[N, 3, H, W]``, uint8, and ``masks[N, H, W]``, int32, in memory."""

    images: Tensor
    masks: Tensor
    pixels: PixelLabels
    size: tuple[int, int]

    @cached_property
    def labels(self) -> Tensor:  # type: ignore[override]  # a property where the base class declares an attribute
        """Zeros."""
        return torch.zeros(len(self.images), dtype=torch.int64)

    def pair(self, index: int) -> Pair:
        """Image and mask ``index``."""
        return Pair(self.images[index], self.masks[index])

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of an image, for each."""
        return np.full(len(self), self.images[0].numel())

    def content(self, index: int) -> bytes:
        """The pixels of image ``index``."""
        return self.images.numpy()[index].tobytes()

    @property
    def largest(self) -> tuple[int, int]:
        """The size of all images."""
        return self.masks.shape[1], self.masks.shape[2]

    @cached_property
    def sha256(self) -> str:
        """Hash of pixels and masks, in hex."""
        content = hashlib.sha256(str(tuple(self.images.shape)).encode())
        content.update(self.images.contiguous().numpy().tobytes())
        content.update(self.masks.contiguous().numpy().tobytes())
        return content.hexdigest()

    def _select(self, mask: Tensor) -> "SegmentationArrays":
        return SegmentationArrays(images=self.images[mask], masks=self.masks[mask], pixels=self.pixels, size=self.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationFiles(SegmentationSet):
    """The files ``images/names[i]`` and ``annotations/masks[i]`` below ``root``; ``sizes[N, 2]`` are height and width.

    Made by ``from_folders``.
    """

    most_compared = 500
    images: Path
    annotations: Path
    names: NDArray[np.bytes_]
    masks: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    pixels: PixelLabels
    size: tuple[int, int]
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", torch.zeros(len(self.names), dtype=torch.int64))

    @classmethod
    def from_folders(
        cls,
        images: Path,
        annotations: Path,
        names: Sequence[tuple[str, str]],
        *,
        pixels: PixelLabels,
        size: Sequence[int],
    ) -> "SegmentationFiles":
        """Build the set from pairs of names. Raises UserError if an image and its mask differ in size.

        Only the files' headers are read, except for the first pair, whose mask is checked.
        """
        sizes = []
        for name, mask in names:
            ours, theirs = _size(images / name), _size(annotations / mask)
            if ours != theirs:
                raise UserError(
                    f"{images / name} is {ours[1]}x{ours[0]}, but its mask {annotations / mask} is "
                    f"{theirs[1]}x{theirs[0]}: give masks of the images' size"
                )
            sizes.append(ours)
        found = cls(
            images=images,
            annotations=annotations,
            names=np.array([os.fsencode(name) for name, _ in names], np.bytes_),
            masks=np.array([os.fsencode(mask) for _, mask in names], np.bytes_),
            sizes=np.array(sizes, np.int64),
            pixels=pixels,
            size=(size[0], size[1]),
        )
        found.pair(0)
        return found

    def pair(self, index: int) -> Pair:
        """Decode image and mask ``index``."""
        image = _decode(self.images / os.fsdecode(self.names[index]), "RGB")
        path = self.annotations / os.fsdecode(self.masks[index])
        values = _decode(path)
        if values.ndim != 2:
            raise UserError(
                f"{path} has {values.shape[-1]} channels: a mask is a gray or palette image of class numbers"
            )
        return Pair(torch.from_numpy(image).permute(2, 0, 1), self.pixels.read(values, str(path)))

    @property
    def largest(self) -> tuple[int, int]:
        """The largest height and the largest width of all images."""
        height, width = self.sizes.max(axis=0).tolist()
        return height, width

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each image's file."""
        return _lengths(self.images, self.names)

    def content(self, index: int) -> bytes:
        """The file of image ``index``."""
        path = self.images / os.fsdecode(self.names[index])
        try:
            return path.read_bytes()
        except OSError as error:
            raise _broken(path, error) from None

    @cached_property
    def sha256(self) -> str:
        """Hash of names, image sizes and lengths of all files, in hex; like that of ``EncodedImages``."""
        content = hashlib.sha256(str((len(self), *self.shape)).encode())
        for folder, names in ((self.images, self.names), (self.annotations, self.masks)):
            content.update(b"\0".join(names.tolist()))
            content.update(_lengths(folder, names).tobytes())
        content.update(self.sizes.tobytes())
        return content.hexdigest()

    def _select(self, mask: Tensor) -> "SegmentationFiles":
        chosen = mask.numpy()
        return SegmentationFiles(
            images=self.images,
            annotations=self.annotations,
            names=self.names[chosen],
            masks=self.masks[chosen],
            sizes=self.sizes[chosen],
            pixels=self.pixels,
            size=self.size,
        )


def _lengths(folder: Path, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Bytes of each of the files ``names`` in ``folder``."""
    lengths = (os.stat(folder / os.fsdecode(name)).st_size for name in names.tolist())  # noqa: PTH116
    return np.fromiter(lengths, np.int64, len(names))


def _size(path: Path) -> tuple[int, int]:
    """Height and width of the image at ``path``, from its header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except DECODING_ERRORS as error:
        raise _broken(path, error) from None


def _decode(path: Path, mode: str | None = None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except DECODING_ERRORS as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read as an image: {error}; download it again, or remove it and its mask")
