"""Sampling: the image indices of each batch of an epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dkl.data.seeding import generator_of


@dataclass(frozen=True, kw_only=True)
class SyntheticMixing:
    """How synthetic images join the real ones.

    There are ``synthetic_count`` synthetic images, at least ``synthetic_per_batch`` of each batch are synthetic, and an
    epoch has ``batches`` batches.
    """

    synthetic_count: int
    synthetic_per_batch: int
    batches: int


def index_batches(count: int, batch_size: int, *, shuffle: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield each of ``count`` indices once; the last batch may be smaller."""
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    yield from order.split(batch_size)


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
    images may hold fewer than ``batch_size - synthetic_per_batch`` of them.
    """
    while True:
        for chosen in index_batches(real, batch_size - mixing.synthetic_per_batch, shuffle=True, generator=generator):
            filling = torch.randint(mixing.synthetic_count, (batch_size - len(chosen),), generator=generator)
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
