"""Labeled images: the interface of all sets, images in memory, and encoded images in files or archives."""

import errno
import hashlib
import io
import math
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dkl.data.augment import USUAL_CENTER, Center, Transform, center_crop
from dkl.data.seeding import seed_global
from dkl.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

# What Pillow raises on damaged files of the formats above.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

Set = TypeVar("Set", bound="ImageSet")


class ImageSet(ABC):
    """Images with ``labels[N]``, int64. ``most_compared`` images of a set are looked for in another; None for all."""

    labels: Tensor
    most_compared: ClassVar[int | None] = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images that a model sees."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash that identifies the content of the set, in hex."""

    @abstractmethod
    def tensor(self) -> Tensor:
        """All images as validation sees them, uint8 [N, C, H, W]."""

    @abstractmethod
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of the ``content`` of each image, [N]."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The pixels of image ``index`` in memory, or its file."""

    @abstractmethod
    def select(self: Set, mask: Tensor) -> Set:
        """The images whose ``mask[N]`` is true."""

    def __len__(self) -> int:
        return len(self.labels)

    def count_in(self, other: "ImageSet") -> tuple[int, int]:
        """How many of these images are in ``other`` too, and how many were looked for: all, or evenly spaced ones.

        Images are equal if their contents have one hash. Only those of equal length are read.
        """

        def hash_of(images: ImageSet, index: int) -> bytes:
            return hashlib.sha256(images.content(index)).digest()

        looked = np.arange(0, len(self), math.ceil(len(self) / (self.most_compared or len(self))))
        lengths, others = self.lengths()[looked], other.lengths()
        known = {hash_of(other, index) for index in np.flatnonzero(np.isin(others, lengths)).tolist()}
        possible = looked[np.isin(lengths, others)].tolist()
        return sum(hash_of(self, index) in known for index in possible), len(looked)

    def per_class(self, num_classes: int) -> Tensor:
        """Number of images per class, int64 [num_classes]."""
        return self.labels.bincount(minlength=num_classes)

    def balanced(self: Set, size: int | None) -> Set:
        """A subset of ``size`` images with the classes balanced; the whole set if ``size`` is None.

        Raises UserError if the set does not have that many images.
        """
        if size is None or size == len(self):
            return self
        if not 1 <= size <= len(self):
            raise UserError(
                f"a subset of {size} images cannot be taken from {len(self)}: lower data.train_size, data.test_size "
                "or n"
            )
        return self.select(self._balanced_mask(size))

    def holdout(self: Set, count: int, *, balanced: bool = True) -> tuple[Set, Set]:
        """Split off ``count`` images, with the classes balanced or the first ones. Returns the rest, then these images.

        Raises UserError if either part would be empty.
        """
        if not 1 <= count < len(self):
            raise UserError(
                f"selection.holdout={count} images cannot be held out of {len(self)}: choose between 1 and "
                f"{len(self) - 1}"
            )
        held = self._balanced_mask(count) if balanced else torch.arange(len(self)) < count
        return self.select(~held), self.select(held)

    def labeled_indices(self, per_class: int, seed: int, *, official: bool = False) -> Tensor:
        """The positions of ``per_class`` random images of every class, int64, sorted: USB's labeled subset at ``seed``.

        USB seeds NumPy's global generator, shuffles the positions of each class in turn and takes the first ones.
        ``official`` is DKL's fork of USB, which prints nine random numbers after seeding.
        Classes without any image are left out. Raises UserError if another class has fewer than ``per_class``.
        """
        draw, labels = np.random.RandomState(seed % 2**32), self.labels.numpy()
        if official:
            draw.randn(2, 4), draw.uniform(32)
        chosen = []
        for label in range(int(labels.max()) + 1):
            places = np.flatnonzero(labels == label)
            if 0 < len(places) < per_class:
                raise UserError(
                    f"data.labels_per_class={per_class}, but class {label} has {len(places)} training images: lower it"
                )
            draw.shuffle(places)
            chosen.append(places[:per_class])
        return torch.from_numpy(np.sort(np.concatenate(chosen)))

    def at(self: Set, indices: Tensor) -> Set:
        """The images at ``indices``, in their order in the set."""
        return self.select(torch.zeros(len(self), dtype=torch.bool).index_fill(0, indices, True))

    def _balanced_mask(self, size: int) -> Tensor:
        """Mask of ``size`` images: the first image of every class, then the second of every class, and so on."""
        by_class = self.labels.argsort(stable=True)
        _, counts = self.labels[by_class].unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        # rank[i] counts the images of the same class before image i
        rank = torch.empty_like(self.labels)
        rank[by_class] = torch.arange(len(self)) - starts.repeat_interleave(counts)
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[rank.argsort(stable=True)[:size]] = True
        return mask


def pixels_sha256(images: Tensor, targets: Tensor) -> str:
    """Hash of shape, pixels and labels or masks, in hex; it does not depend on the file format."""
    content = hashlib.sha256(str(tuple(images.shape)).encode())
    content.update(images.contiguous().numpy().tobytes())
    content.update(targets.contiguous().numpy().tobytes())
    return content.hexdigest()


@dataclass(frozen=True)
class Images(ImageSet):
    """``images[N, C, H, W]``, uint8, and ``labels[N]``, int64. Raises UserError on another dtype or shape."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UserError(
                f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}; "
                "scale them to 0 to 255 and convert them with .to(torch.uint8)"
            )
        if not len(self.images):
            raise UserError("the image files hold no images: check data.source")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"labels must be int64 ({len(self.images)},), not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, pixels and labels, in hex."""
        return pixels_sha256(self.images, self.labels)

    def tensor(self) -> Tensor:
        """The images themselves."""
        return self.images

    def lengths(self) -> NDArray[np.int64]:
        """Bytes of an image, for each."""
        return np.full(len(self), math.prod(self.shape))

    def content(self, index: int) -> bytes:
        """The pixels of image ``index``."""
        return self.images.numpy()[index].tobytes()

    def select(self, mask: Tensor) -> "Images":
        """The images whose ``mask[N]`` is true."""
        return Images(self.images[mask], self.labels[mask])


class EncodedImages(ImageSet):
    """Encoded images (JPEG, PNG …) of any sizes, decoded when used, for datasets that do not fit in memory.

    A model sees ``size``² pixels of each, in tests the ``center``. ``names`` are bytes in one array instead of a list
    of strings: forked workers would copy each string's memory page, because reading a string changes its reference
    count.
    """

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
            raise _incomplete(self.location(index), error) from None

    @contextmanager
    def image(self, index: int) -> Iterator[Image.Image]:
        """Open image ``index`` for Pillow. Raises UserError if it cannot be decoded, also in the body."""
        try:
            with self.open(index) as file, Image.open(file) as image:
                yield image
        except DECODING_ERRORS as error:
            raise UserError(
                f"{self.location(index)} cannot be read as an image: {error}; download it again, or remove it"
            ) from None

    def pixels(self, index: int, mode: str | None = "RGB") -> NDArray[np.uint8]:
        """The whole image ``index``, decoded and converted to ``mode``: [H, W] or [H, W, channels]."""
        with self.image(index) as image:
            return np.array(image.convert(mode) if mode else image)

    def crop(self, index: int, transform: Transform, seed: int | None = None) -> NDArray[np.uint8]:
        """Decode image ``index`` and apply ``transform``: RGB pixels [size, size, 3].

        A ``seed`` seeds the global generators, from which ``transform`` draws; the caller must preserve them. Raises
        UserError if the image cannot be decoded.
        """
        with self.image(index) as image:
            rgb = image.convert("RGB")
        if seed is not None:
            seed_global(seed)
        return np.asarray(transform(rgb))

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

    def check_first(self) -> None:
        """Raise UserError if the first image cannot be decoded; the others are read when they are used."""
        self.pixels(0)

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


@dataclass(frozen=True, eq=False)
class ImageFiles(EncodedImages):
    """The files ``root/names[i]`` with ``labels[N]``, int64; a model sees ``size``² pixels. Made by ``from_names``."""

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

    def select(self, mask: Tensor) -> "ImageFiles":
        """The images whose ``mask[N]`` is true."""
        return replace(self, names=self.names[mask.numpy()], labels=self.labels[mask])

    def lengths(self) -> NDArray[np.int64]:
        """Length of each encoded image in bytes."""
        folder = os.open(self.root, os.O_RDONLY)
        try:  # stat relative to an open folder is four times as fast as building a Path per file
            sizes = (os.stat(name, dir_fd=folder).st_size for name in self.names.tolist())
            return np.fromiter(sizes, np.int64, len(self))
        except OSError as error:
            raise _incomplete(self.root / os.fsdecode(error.filename), error) from None
        finally:
            os.close(folder)


def _incomplete(place: str | Path, error: OSError) -> UserError:
    return UserError(f"{place} cannot be read: {error.strerror}; check that the dataset is complete")


@dataclass(frozen=True, eq=False)
class ShardedImages(EncodedImages):
    """Images inside tar shards or a zip, read from their place without unpacking the whole; ``labels[N]``, int64.

    Image i is ``spans[i, 1]`` bytes at offset ``spans[i, 0]`` of file ``paths[shard[i]]``, or there are
    ``spans[i, 2]`` bytes that inflate to it, unless that is 0.
    """

    paths: tuple[Path, ...]
    names: NDArray[np.bytes_]
    shard: NDArray[np.int64]
    spans: NDArray[np.int64]
    labels: Tensor
    size: int
    center: Center = USUAL_CENTER

    def open(self, index: int) -> IO[bytes]:
        """Read the encoded image ``index``."""
        start, length, deflated = self.spans[index].tolist()
        with self.paths[self.shard[index]].open("rb") as file:
            file.seek(start)
            content = file.read(deflated or length)
        try:
            return io.BytesIO(zlib.decompress(content, -zlib.MAX_WBITS) if deflated else content)
        except zlib.error as error:
            raise OSError(errno.EIO, str(error)) from None

    def location(self, index: int) -> str:
        """Key and shard of image ``index``."""
        return f"{os.fsdecode(self.names[index])} in {self.paths[self.shard[index]]}"

    def select(self, mask: Tensor) -> "ShardedImages":
        """The images whose ``mask[N]`` is true."""
        kept = mask.numpy()
        arrays = {name: getattr(self, name)[kept] for name in ("names", "shard", "spans")}
        return replace(self, **arrays, labels=self.labels[mask])

    def lengths(self) -> NDArray[np.int64]:
        """Length of each encoded image in bytes."""
        return np.ascontiguousarray(self.spans[:, 1])
