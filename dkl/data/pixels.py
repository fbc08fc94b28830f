"""Images with a label for every pixel: pairs of files, or arrays in memory."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.data.images import ImageFiles, ImageSet, pixels_sha256
from dkl.errors import UserError
from dkl.validation import Range, check_fields

GRAY = (0.5, 0.5, 0.5)


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

    @classmethod
    def of_source(
        cls, num_classes: int, ignore_index: int | None, mean: Sequence[float] | None = None, first_class: int = 0
    ) -> "PixelLabels":
        """Build them from the arguments of a source; ``mean`` is the fill color in [0, 1].

        Raises UserError if one is wrong.
        """
        if ignore_index is None:
            raise UserError("data.ignore_index=null: masks need a value for pixels that do not count, such as 255")
        if mean is not None and len(mean) != 3:
            raise UserError(f"data.mean={list(mean)} must have one value per channel of images with masks: three")
        red, green, blue = (round(255 * value) for value in mean or GRAY)
        return cls(num_classes=num_classes, ignore_index=ignore_index, first_class=first_class, fill=(red, green, blue))

    def read(self, values: NDArray[np.integer], where: str) -> Tensor:
        """The mask that a file at ``where`` holds. Raises UserError if it has a value that is no class."""
        if values.ndim != 2:
            raise UserError(
                f"{where} has {values.shape[-1]} channels: a mask is a gray or palette image of class numbers"
            )
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
        """Hash of shape, pixels and masks, in hex."""
        return pixels_sha256(self.images, self.masks)

    def select(self, mask: Tensor) -> "SegmentationArrays":
        """The images whose ``mask[N]`` is true, with their masks."""
        return replace(self, images=self.images[mask], masks=self.masks[mask])


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationFiles(SegmentationSet):
    """Image files and mask files, pair by pair; ``sizes[N, 2]`` are height and width. Made by ``from_folders``."""

    most_compared = 500
    images: ImageFiles
    masks: ImageFiles
    sizes: NDArray[np.int64]
    pixels: PixelLabels
    size: tuple[int, int]

    @property
    def labels(self) -> Tensor:  # type: ignore[override]  # a property where the base class declares an attribute
        """Zeros."""
        return self.images.labels

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
        image_files, mask_files = (
            # Their size is that of square crops, which nobody takes of them.
            ImageFiles.from_names(folder, files, [0] * len(files), size=0)
            for folder, files in zip((images, annotations), zip(*names, strict=True), strict=True)
        )
        sizes = []
        for index in range(len(names)):
            with image_files.image(index) as image, mask_files.image(index) as mask:
                sizes.append((image.height, image.width))
                if image.size != mask.size:
                    raise UserError(
                        f"{image_files.path(index)} is {image.width}x{image.height}, but its mask "
                        f"{mask_files.path(index)} is {mask.width}x{mask.height}: give masks of the images' size"
                    )
        pairs = cls(
            images=image_files,
            masks=mask_files,
            sizes=np.array(sizes, np.int64),
            pixels=pixels,
            size=(size[0], size[1]),
        )
        pairs.pair(0)
        return pairs

    def pair(self, index: int) -> Pair:
        """Decode image and mask ``index``."""
        image = torch.from_numpy(self.images.pixels(index)).permute(2, 0, 1)
        return Pair(image, self.pixels.read(self.masks.pixels(index, mode=None), self.masks.location(index)))

    @property
    def largest(self) -> tuple[int, int]:
        """The largest height and the largest width of all images."""
        height, width = self.sizes.max(axis=0).tolist()
        return height, width

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each image's file."""
        return self.images.lengths()

    def content(self, index: int) -> bytes:
        """The file of image ``index``."""
        return self.images.content(index)

    @cached_property
    def sha256(self) -> str:
        """Hash of names, image sizes and lengths of all files, in hex; like that of ``EncodedImages``."""
        content = hashlib.sha256(str((len(self), *self.shape)).encode())
        for files in (self.images, self.masks):
            content.update(b"\0".join(files.names.tolist()))
            content.update(files.lengths().tobytes())
        content.update(self.sizes.tobytes())
        return content.hexdigest()

    def select(self, mask: Tensor) -> "SegmentationFiles":
        """The images whose ``mask[N]`` is true, with their masks."""
        images, masks, sizes = self.images.select(mask), self.masks.select(mask), self.sizes[mask.numpy()]
        return replace(self, images=images, masks=masks, sizes=sizes)
