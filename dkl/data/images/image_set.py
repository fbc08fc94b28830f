"""The interface of labeled images, in memory or in files: subsets, images per class, and images in two sets."""

import hashlib
import math
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.errors import UserError

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

    def count_in(self, other: "ImageSet") -> tuple[int, int]:
        """How many of these images are in ``other`` too, and how many were looked for: all, or evenly spaced ones.

        Images are equal if their contents have one hash. Only those of equal length are read.
        """
        looked = np.arange(0, len(self), math.ceil(len(self) / (self.most_compared or len(self))))
        lengths, others = self.lengths()[looked], other.lengths()
        known = {_hash(other.content(index)) for index in np.flatnonzero(np.isin(others, lengths)).tolist()}
        possible = looked[np.isin(lengths, others)].tolist()
        return sum(_hash(self.content(index)) in known for index in possible), len(looked)

    @abstractmethod
    def _select(self: Set, mask: Tensor) -> Set:
        """The images whose ``mask[N]`` is true."""

    def __len__(self) -> int:
        return len(self.labels)

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
        return self._select(self._balanced_mask(size))

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
        return self._select(~held), self._select(held)

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
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[indices] = True
        return self._select(mask)

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


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
