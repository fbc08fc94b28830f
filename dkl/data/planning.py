"""Batch plans: the indices, the process's share and the random choices of a batch, before any pixel is read.

Every process draws the same whole batch and keeps its own share. The shares of all processes together are therefore
exactly the batch of a single process.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.augment import Augment, Draw
from dkl.data.batch import rank_slice
from dkl.data.seeding import generator_of
from dkl.data.synthetic import SyntheticImages
from dkl.errors import UserError


@dataclass(frozen=True)
class Batching:
    """How a loader makes batches of ``batch_size`` images. Raises ValueError if that is below 1.

    ``augment`` changes training images; None leaves them as tests see them. ``seed`` and epoch determine the order,
    with ``shuffle``, and every random choice. ``drop_last`` leaves out a smaller last batch. Process ``rank`` of
    ``world`` gets its share of every batch. ``workers`` processes read images, or make views image by image. Images
    arrive on ``device``, in ``dtype`` and ``memory_format``.
    """

    batch_size: int
    _: KW_ONLY
    augment: Augment | None = None
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world: int = 1
    workers: int = 0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")

    def scaled(self, images: Tensor) -> Tensor:
        """Bytes to numbers in [0, 1]."""
        return images.to(self.dtype, memory_format=self.memory_format).div_(255)


@dataclass(frozen=True)
class SyntheticMixing:
    """``fraction`` of each batch, rounded down, is drawn from ``images``.

    An epoch has as many full batches as ``epoch_size`` images need; by default as the real images.
    """

    images: SyntheticImages
    fraction: float
    epoch_size: int | None = None

    def per_batch(self, batch_size: int) -> int:
        """The synthetic images of a batch. Raises UserError if a batch would be all real or all synthetic."""
        count = int(batch_size * self.fraction)
        if not 0 < count < batch_size:
            raise UserError(
                f"data.synthetic.fraction={self.fraction} makes {count} of a batch of {batch_size} synthetic: choose a "
                "fraction between 0 and 1 that leaves some of both, or a larger trainer.batch_size"
            )
        return count


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
    """Plans the batches of every epoch for ``count`` images of ``size`` (H, W), determined by seed and epoch.

    ``augment`` is what is drawn here; transforms that draw by themselves get ``per_image_seeds``. Raises UserError if a
    batch is too small for the processes or for ``mixing``, or if an epoch has no batch.
    """

    count: int
    size: tuple[int, ...]
    batching: Batching
    augment: Augment
    mixing: SyntheticMixing | None = None
    per_image_seeds: bool = False

    def __post_init__(self) -> None:
        batching = self.batching
        if len(self) == 0:
            raise UserError(
                f"trainer.drop_last=true leaves no batch of {batching.batch_size} in {self.count} training images: "
                "lower trainer.batch_size, or set trainer.drop_last=false"
            )
        if self.mixing:
            self.mixing.per_batch(batching.batch_size)
        partial = self.count % batching.batch_size
        whole = self.mixing or batching.drop_last or not partial
        smallest, key = (batching.batch_size if whole else partial), "trainer" if batching.shuffle else "evaluation"
        if smallest < batching.world:
            drop = " or add trainer.drop_last=true" if batching.shuffle and not whole else ""
            raise UserError(
                f"a batch of {smallest} images cannot be shared by {batching.world} processes: choose another "
                f"{key}.batch_size{drop}"
            )

    def __len__(self) -> int:
        size = self.batching.batch_size
        if self.mixing:
            return -(-(self.mixing.epoch_size or self.count) // size)
        return self.count // size if self.batching.drop_last else -(-self.count // size)

    def epoch(self, epoch: int) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch."""
        batching, second, repeats = self.batching, self.augment.second, self.augment.repeats
        generator, seeds = generator_of(batching.seed, epoch), None
        if self.per_image_seeds:
            # From a generator of their own, so that an image's seed depends on seed, epoch, image and copy only.
            seeds = torch.randint(2**32, (self.count * repeats,), generator=generator_of(batching.seed, epoch, 1))
        if self.mixing:
            batches = mixed_index_batches(self.count, batching.batch_size, self.mixing, generator)
        elif repeats > 1:
            batches = repeated_index_batches(self.count, batching.batch_size, repeats, generator)
        else:
            order = torch.randperm(self.count, generator=generator) if batching.shuffle else torch.arange(self.count)
            batches = iter(order.split(batching.batch_size))
        for chosen in islice(batches, len(self)):
            total = len(chosen)
            part = rank_slice(total, batching.rank, batching.world)
            # Every process draws for the whole batch: the generators then stay in step.
            draw = self.augment.draw(total, self.size, generator).share(part)
            second_draw = second.draw(total, self.size, generator).share(part) if second else None
            copies = chosen[part]
            images = copies % self.count if repeats > 1 else copies
            yield BatchPlan(images, part.start, total, draw, second_draw, None if seeds is None else seeds[copies])


@dataclass(frozen=True, kw_only=True)
class StreamPlanner:
    """Plans ``steps`` full batches per epoch of an endless stream of ``count`` images of ``size`` (H, W).

    ``key`` tells the streams of one ``batching`` apart. With ``second`` each image gets another draw and a seed.
    """

    count: int
    size: tuple[int, ...]
    batching: Batching
    augment: Augment
    steps: int
    key: int
    second: bool

    def epoch(self, epoch: int) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch, which need no epoch before it."""
        total, seed = self.batching.batch_size, self.batching.seed
        draws = generator_of(seed, epoch, self.key)
        order = endless_index_batches(self.count, total, start=epoch * self.steps * total, seed=(seed, self.key, 0))
        part = rank_slice(total, self.batching.rank, self.batching.world)
        for chosen in islice(order, self.steps):
            # Every process draws for the whole batch: the generators then stay in step.
            draw = self.augment.draw(total, self.size, draws).share(part)
            second = self.augment.draw(total, self.size, draws).share(part) if self.second else None
            seeds = torch.randint(2**32, (total,), generator=draws)[part] if self.second else None
            yield BatchPlan(chosen[part], part.start, total, draw, second, seeds)


def repeated_index_batches(count: int, batch_size: int, repeats: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield ``repeats`` copies of each chosen image (Hoffer et al. 2020, as in timm), ``count`` indices in all.

    Copy k of image i has the index i + k · ``count``. The copies of an image follow each other. Each batch is shuffled,
    so that the processes share the copies.
    """
    copies = count * torch.arange(repeats)
    order = (torch.randperm(count, generator=generator)[:, None] + copies).flatten()[:count]
    for chosen in order.split(batch_size):
        yield chosen[torch.randperm(len(chosen), generator=generator)]


def mixed_index_batches(
    real: int, batch_size: int, mixing: SyntheticMixing, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield batches of real images (indices below ``real``) and synthetic ones (from ``real`` on), without end.

    Real images come in shuffled order and start over when used up. Synthetic images are uniform with replacement and
    fill up each batch, whose order is then shuffled. As in DM-Improves-AT, the last batch of a pass over the real
    images may hold fewer of them than the others.
    """
    real_per_batch = batch_size - mixing.per_batch(batch_size)
    while True:
        for chosen in torch.randperm(real, generator=generator).split(real_per_batch):
            filling = torch.randint(len(mixing.images), (batch_size - len(chosen),), generator=generator)
            yield torch.cat([chosen, real + filling])[torch.randperm(batch_size, generator=generator)]


def endless_index_batches(count: int, batch_size: int, *, start: int, seed: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield full batches of endless shuffled passes over ``count`` indices, from position ``start`` of them on.

    Each pass is shuffled by a generator of its own, derived from ``seed`` and the number of the pass. A batch may hold
    the end of one pass and the beginning of the next.
    """
    number, offset = divmod(start, count)
    rest = torch.randperm(count, generator=generator_of(*seed, number))[offset:]
    while True:
        while len(rest) < batch_size:
            number += 1
            rest = torch.cat([rest, torch.randperm(count, generator=generator_of(*seed, number))])
        yield rest[:batch_size]
        rest = rest[batch_size:]
