"""What a batch will be before any pixel is touched: which images, whose share, and what chance decided for them.

Every process draws the whole batch alike and keeps its share, so that the shares together are the batch of one process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.seeding import generator_of
from dkl.data.transforms.augment import Augment, Draw
from dkl.errors import UserError


class Plan(NamedTuple):
    """One process's share of a batch: images ``chosen[n]``, from place ``first`` on in the whole of ``total``.

    ``second`` is the second view's draw; ``seeds[n]``, one an image, are for what draws by itself.
    """

    chosen: Tensor
    first: int
    total: int
    draw: Draw
    second: Draw | None
    seeds: Tensor | None


@dataclass(frozen=True, kw_only=True)
class SyntheticMixing:
    """``synthetic`` images join: ``generated`` of each batch or more, ``batches`` an epoch."""

    synthetic: int
    generated: int
    batches: int


def in_turn(count: int, batch_size: int, *, shuffle: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """Each of ``count`` images once; the last batch may be smaller."""
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    yield from order.split(batch_size)


def repeated(count: int, batch_size: int, repeats: int, generator: torch.Generator) -> Iterator[Tensor]:
    """As long as ``in_turn``, of every image ``repeats`` copies one after another (Hoffer et al. 2020), as timm has it.

    Copy k of image i is the number i + k · ``count``. Places in a batch are shuffled, so that processes share copies.
    """
    copies = count * torch.arange(repeats)
    order = (torch.randperm(count, generator=generator)[:, None] + copies).flatten()[:count]
    for chosen in order.split(batch_size):
        yield chosen[torch.randperm(len(chosen), generator=generator)]


def mixed(real: int, batch_size: int, mixing: SyntheticMixing, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of real images (below ``real``) in shuffled order, begun anew when used up, and of synthetic ones.

    The synthetic ones (from ``real`` on) are uniform with replacement and fill up each batch; places are shuffled.
    As in DM-Improves-AT, the last real images of a pass may be fewer than ``batch_size - generated``.
    """
    while True:
        for chosen in in_turn(real, batch_size - mixing.generated, shuffle=True, generator=generator):
            filling = torch.randint(mixing.synthetic, (batch_size - len(chosen),), generator=generator)
            yield torch.cat([chosen, real + filling])[torch.randperm(batch_size, generator=generator)]


def share(total: int, rank: int, world: int) -> slice:
    """Where in ``total`` images those of process ``rank`` lie: as ``torch.tensor_split`` would cut them."""
    each, more = divmod(total, world)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans of every epoch for ``count`` images of ``size`` (H, W): ``len`` of them, fixed by ``seed`` and epoch.

    With ``seeded`` each image has a seed of its own as well.
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
    seeded: bool = False

    def __post_init__(self) -> None:
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

    def epoch(self, epoch: int) -> Iterator[Plan]:
        """The plans of one epoch. An image's seed follows from seed, epoch, image and copy, whatever the batches."""
        generator, second, repeats = generator_of(self.seed, epoch), self.augment.second, self.augment.repeats
        seeds = None
        if self.seeded:
            seeds = torch.randint(2**32, (self.count * repeats,), generator=generator_of(self.seed, epoch, 1))
        if self.mixing:
            batches = mixed(self.count, self.batch_size, self.mixing, generator)
        elif repeats > 1:
            batches = repeated(self.count, self.batch_size, repeats, generator)
        else:
            batches = in_turn(self.count, self.batch_size, shuffle=self.shuffle, generator=generator)
        for chosen in islice(batches, len(self)):
            total = len(chosen)
            part = share(total, self.rank, self.world)
            draw = self.augment.draw(total, self.size, generator).share(part)
            other = second.draw(total, self.size, generator).share(part) if second else None
            own = chosen[part]
            images = own % self.count if repeats > 1 else own
            yield Plan(images, part.start, total, draw, other, None if seeds is None else seeds[own])
