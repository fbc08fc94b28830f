"""Labelled images in memory, and the fast way to draw augmented batches from them.

CIFAR-sized sets live whole on the device as uint8. A batch with random crops is one gather from an unfolded view of
the padded images, with no loop over samples, and costs as much as the bytes it moves.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.errors import UserError


class Batch(NamedTuple):
    """``images[V·B, C, H, W]`` in [0, 1] and ``labels[V·B]``, int64: V views of the same B images, one after another.

    On several processes these are one process's share: ``first`` is the place of its first image in the whole batch
    of ``total`` (0: this is the whole batch).
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
class Images:
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

    def __len__(self) -> int:
        return len(self.labels)

    def balanced(self, size: int | None) -> "Images":
        """The first ``size`` images taken from all classes alike, or all of them where ``size`` is None."""
        if size is None or size == len(self):
            return self
        if not 1 <= size <= len(self):
            raise UserError(
                f"a subset of {size} images cannot be taken from {len(self)}: lower data.train_size or data.test_size"
            )
        rank = torch.empty(len(self), dtype=torch.int64)
        for label in self.labels.unique():
            where = (self.labels == label).nonzero().squeeze(1)
            rank[where] = torch.arange(len(where))
        chosen = rank.argsort(stable=True)[:size].sort().values
        return Images(self.images[chosen], self.labels[chosen])

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, pixels and labels, in hex: the same data, however stored, has the same."""
        content = hashlib.sha256(str(tuple(self.images.shape)).encode())
        content.update(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        return content.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Zero-pad by ``crop_padding``, crop back at a uniform offset, mirror with probability ½ where ``flip``."""

    crop_padding: int = 0
    flip: bool = False


class Batches:
    """Batches of ``data`` on ``device``: in order, or shuffled and augmented by a draw that ``seed`` and epoch fix."""

    def __init__(
        self,
        data: Images,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.augment = augment or Augment()
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.dtype, self.memory_format = dtype, memory_format
        self.labels = data.labels.to(device)
        pad = self.augment.crop_padding
        height, width = data.images.shape[-2:]
        padded = F.pad(data.images.to(device), (pad, pad, pad, pad))
        self.crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2 pad + 1, 2 pad + 1, H, W), a view

    def __len__(self) -> int:
        size = len(self.labels)
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]))
        count = len(self.labels)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for chosen in order.split(self.batch_size)[: len(self)]:
            yield self._take(chosen, generator)

    def _take(self, chosen: Tensor, generator: torch.Generator) -> Batch:
        device, pad = self.labels.device, self.augment.crop_padding
        offsets = torch.full((2, len(chosen)), pad)
        if pad:
            offsets = torch.randint(2 * pad + 1, (2, len(chosen)), generator=generator)
        index = chosen.to(device, non_blocking=True)
        down, right = offsets.to(device, non_blocking=True)
        images = self.crops[index, :, down, right]
        if self.augment.flip:
            mirrored = (torch.rand(len(chosen), generator=generator) < 0.5).nonzero().squeeze(1)
            mirrored = mirrored.to(device, non_blocking=True)
            images[mirrored] = images[mirrored].flip(-1)
        scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
        return Batch(scaled, self.labels[index])
