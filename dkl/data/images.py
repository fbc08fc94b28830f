"""Labelled images in memory, and the batches that training sees."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.imageset import ImageSet
from dkl.data.plan import share
from dkl.errors import UserError


class Batch(NamedTuple):
    """``images[V·B, C, H, W]`` in [0, 1] and ``labels[V·B]``, int64: V views of the same B images, one after another.

    On several processes these are one process's share: ``first`` is the place of its first image in the whole batch
    of ``total`` (0: this is the whole batch). Places and ``total`` count one view. ``indices[B]`` say which images of
    the set these are; None where they are of no one set.
    """

    images: Tensor
    labels: Tensor
    views: int = 1
    first: int = 0
    total: int = 0
    indices: Tensor | None = None

    @property
    def share(self) -> float:
        """How much of the whole batch this is, in (0, 1]."""
        return len(self.labels) / (self.views * self.total) if self.total else 1.0

    def parts(self, count: int) -> "Iterator[Batch]":
        """This, cut into ``count`` parts as processes would share it; all views of an image are in one part."""
        size = len(self.labels) // self.views
        for place in (share(size, number, count) for number in range(count)):
            images, labels = (
                torch.cat([view[place] for view in values.chunk(self.views)]) for values in (self.images, self.labels)
            )
            indices = None if self.indices is None else self.indices[place]
            yield Batch(images, labels, self.views, self.first + place.start, self.total or size, indices)


@dataclass(frozen=True)
class Images(ImageSet):
    """``images[N, C, H, W]``, uint8, and ``labels[N]``, int64. Raises UserError where they are anything else."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UserError(f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}")
        if not len(self.images):
            raise UserError("there are no images: the files are empty")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(f"labels must be int64 ({len(self.images)},), not {tuple(self.labels.shape)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    def tensor(self) -> Tensor:
        """The images themselves."""
        return self.images

    def _part(self, mask: Tensor) -> "Images":
        return Images(self.images[mask], self.labels[mask])

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, pixels and labels, in hex: the same data, however stored, has the same."""
        content = hashlib.sha256(str(tuple(self.images.shape)).encode())
        content.update(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()
