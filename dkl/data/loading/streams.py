"""Batches of semi-supervised training: a stream of labeled images and, in step with it, one of unlabeled images.

Both streams are endless shuffled passes, so that an epoch is any number of steps. Position in a stream, crops and
strong views depend on seed, epoch and step only: not on the workers, the processes or an interruption.
"""

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dkl.data.images.in_memory import Images
from dkl.data.loading.batch import Batch, Unlabeled, rank_slice
from dkl.data.loading.batch_plan import BatchPlan
from dkl.data.loading.index_batches import endless_index_batches
from dkl.data.loading.prefetch import prefetch
from dkl.data.loading.worker_views import Change, worker_views
from dkl.data.seeding import generator_of
from dkl.data.transforms.augment import Augment
from dkl.errors import UserError
from dkl.runtime.device import on_accelerator

LABELED, UNLABELED = 2, 3
"""Parts of the key that seeds a stream; 0 and 1 would be the generators of ``BatchPlanner``."""


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """Plans of ``steps`` full batches per epoch of ``images``; ``second`` plans another draw of every image."""

    images: Images
    batch_size: int
    steps: int
    augment: Augment
    second: bool
    seed: int
    key: int
    rank: int
    world: int

    def epoch(self, epoch: int) -> Iterator[BatchPlan]:
        count, size = len(self.images), (self.images.shape[-2], self.images.shape[-1])
        start, draws = epoch * self.steps * self.batch_size, generator_of(self.seed, epoch, self.key)
        order = endless_index_batches(count, self.batch_size, start=start, seed=(self.seed, self.key, 0))
        part = rank_slice(self.batch_size, self.rank, self.world)
        for chosen in itertools.islice(order, self.steps):
            # Every process draws for the whole batch: the generators then stay in step.
            draw = self.augment.draw(self.batch_size, size, draws).share(part)
            second = self.augment.draw(self.batch_size, size, draws).share(part) if self.second else None
            seeds = torch.randint(2**32, (self.batch_size,), generator=draws)[part] if self.second else None
            yield BatchPlan(chosen[part], part.start, self.batch_size, draw, second, seeds)


class StreamBatches:
    """``steps`` batches per epoch of ``labeled`` images, with ``ratio`` times as many of ``unlabeled`` ones if given.

    ``augment`` makes the weak views. ``strong`` changes another weak view of each unlabeled image into the strong one,
    in ``workers`` processes; without it the second view is weak too. Process ``rank`` of ``world`` gets its share of
    every batch. ``labels`` are those of the labeled images.

    Raises UserError if the unlabeled images do not fill a batch, or if the processes cannot share one equally.
    """

    def __init__(
        self,
        labeled: Images,
        batch_size: int,
        *,
        steps: int | None = None,
        unlabeled: Images | None = None,
        ratio: int = 0,
        strong: Change | None = None,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self.augment = augment or Augment()
        self.augment.check(labeled.shape)
        self.augment.check_no_masks()
        if batch_size % world:
            raise UserError(
                f"a batch of {batch_size} labeled images cannot be shared equally by {world} processes: choose another "
                "trainer.batch_size"
            )
        if unlabeled is not None and len(unlabeled) < batch_size * ratio:
            raise UserError(
                f"a step needs {batch_size} x {ratio} unlabeled images, but there are {len(unlabeled)}: lower "
                "trainer.batch_size or data.unlabeled.ratio"
            )
        self._steps = steps or -(-len(labeled) // batch_size)
        shared: dict[str, Any] = {"steps": self._steps, "augment": self.augment, "seed": seed}
        shared |= {"rank": rank, "world": world}
        self._labeled = _Stream(images=labeled, batch_size=batch_size, second=False, key=LABELED, **shared)
        self._unlabeled = None
        self.labels = labeled.labels.to(device)
        self._windows = self.augment.windows(labeled.images.to(device))
        if unlabeled is not None and ratio:
            self._unlabeled = _Stream(
                images=unlabeled, batch_size=batch_size * ratio, second=True, key=UNLABELED, **shared
            )
            self._hidden = unlabeled.labels.to(device)
            self._unlabeled_windows = self.augment.windows(unlabeled.images.to(device))
        self.strong, self.workers, self.dtype, self.memory_format = strong, workers, dtype, memory_format

    def __len__(self) -> int:
        return self._steps

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; on a GPU each is prepared while the one before is in use."""
        batches = self._make(epoch)
        return prefetch(batches) if on_accelerator(self.labels) else batches

    def _make(self, epoch: int) -> Generator[Batch, None, None]:
        views = self._views(epoch) if self._unlabeled else itertools.repeat(None)
        for plan, unlabeled in zip(self._labeled.epoch(epoch), views, strict=False):
            index = plan.chosen.to(self.labels.device, non_blocking=True)
            images = self._scaled(self.augment.apply(self._windows, index, plan.draw))
            yield Batch(images, self.labels[index], 1, plan.first, plan.total, index, unlabeled)

    def _views(self, epoch: int) -> Iterator[Unlabeled]:
        assert self._unlabeled is not None
        device, windows = self.labels.device, self._unlabeled_windows
        plans, ahead = itertools.tee(self._unlabeled.epoch(epoch))
        made = itertools.repeat(None) if self.strong is None else self._strong_views(ahead)
        for plan, strong in zip(plans, made, strict=False):
            index = plan.chosen.to(device, non_blocking=True)
            weak = self.augment.apply(windows, index, plan.draw)
            if strong is None:
                assert plan.second is not None
                strong = self.augment.apply(windows, index, plan.second)
            yield Unlabeled(self._scaled(weak), self._scaled(strong.to(device)), self._hidden[index])

    def _strong_views(self, plans: Iterator[BatchPlan]) -> Iterator[Tensor]:
        assert self._unlabeled is not None
        assert self.strong is not None
        return worker_views(self._unlabeled.images.images, self.augment, self.strong, plans, self.workers)

    def _scaled(self, images: Tensor) -> Tensor:
        return images.to(self.dtype, memory_format=self.memory_format).div_(255)
