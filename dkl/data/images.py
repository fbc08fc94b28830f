"""Labelled images in memory, and the batches that training sees."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.imageset import ImageSet
from dkl.errors import UserError


class Batch(NamedTuple):
    """``images[V·B, C, H, W]`` in [0, 1] and ``labels[V·B]``, int64: V views of the same B images, one after another.

    On several processes these are one process's share: ``first`` is the place of its first image in the whole batch
    of ``total`` (0: this is the whole batch). Places and ``total`` count one view.
    """

    images: Tensor
    labels: Tensor
    views: int = 1
    first: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """How much of the whole batch this is, in (0, 1]."""
        return len(self.labels) / (self.views * self.total) if self.total else 1.0


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
