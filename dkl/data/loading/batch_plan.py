"""Batch plans: the indices, the process's share and the random choices of a batch, before any pixel is read.

Every process draws the same whole batch and keeps its own share. The shares of all processes together are therefore
exactly the batch of a single process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.loading.batch import rank_slice
from dkl.data.loading.index_batches import (
    SyntheticMixing,
    index_batches,
    mixed_index_batches,
    repeated_index_batches,
)
from dkl.data.seeding import generator_of
from dkl.data.transforms.augment import Augment, Draw
from dkl.errors import UserError


class BatchPlan(NamedTuple):
    """One process's share of a batch: images ``chosen[n]``, at position ``first`` of a whole batch of ``total``.

    ``draw`` and ``second`` are the random choices for the first and second view; ``second`` is None without one.
    ``seeds[n]``, one per image, seed transforms that draw their own random numbers; None if there are none.
    """

    chosen: Tensor
    first: int
    total: int
    draw: Draw
    second: Draw | None
    seeds: Tensor | None


@dataclass(frozen=True, kw_only=True)
class BatchPlanner:
    """Plans the batches of every epoch for ``count`` images of ``size`` (H, W), determined by ``seed`` and epoch.

    With ``per_image_seeds`` each image also gets a seed. Raises UserError if a batch is too small for ``world``
    processes, or if an epoch has no batch.
    """

    count: int
    size: tuple[int, int]
    batch_size: int
    augment: Augment
    shuffle: bool
    drop_last: bool
    seed: int
    rank: int
    world: int
    mixing: SyntheticMixing | None = None
    per_image_seeds: bool = False

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise UserError(
                f"trainer.drop_last=true leaves no batch of {self.batch_size} in {self.count} training images: lower "
                "trainer.batch_size, or set trainer.drop_last=false"
            )
        partial = self.count % self.batch_size
        whole = self.mixing or self.drop_last or not partial
        smallest, key = (self.batch_size if whole else partial), "trainer" if self.shuffle else "evaluation"
        if smallest < self.world:
            drop = " or add trainer.drop_last=true" if self.shuffle and not whole else ""
            raise UserError(
                f"a batch of {smallest} images cannot be shared by {self.world} processes: choose another "
                f"{key}.batch_size{drop}"
            )

    def __len__(self) -> int:
        if self.mixing:
            return self.mixing.batches
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch."""
        generator, second, repeats = generator_of(self.seed, epoch), self.augment.second, self.augment.repeats
        seeds = None
        if self.per_image_seeds:
            # From a generator of their own, so that an image's seed depends on seed, epoch, image and copy only.
            seeds = torch.randint(2**32, (self.count * repeats,), generator=generator_of(self.seed, epoch, 1))
        for chosen in islice(self._index_batches(generator), len(self)):
            total = len(chosen)
            part = rank_slice(total, self.rank, self.world)
            # Every process draws for the whole batch: the generators then stay in step.
            draw = self.augment.draw(total, self.size, generator).share(part)
            second_draw = second.draw(total, self.size, generator).share(part) if second else None
            own = chosen[part]
            images = own % self.count if repeats > 1 else own
            yield BatchPlan(images, part.start, total, draw, second_draw, None if seeds is None else seeds[own])

    def _index_batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        if self.mixing:
            return mixed_index_batches(self.count, self.batch_size, self.mixing, generator)
        if self.augment.repeats > 1:
            return repeated_index_batches(self.count, self.batch_size, self.augment.repeats, generator)
        return index_batches(self.count, self.batch_size, shuffle=self.shuffle, generator=generator)
