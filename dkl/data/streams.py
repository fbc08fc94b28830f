"""Batches of semi-supervised training: a stream of labeled images and, in step with it, one of unlabeled images.

Both streams are endless shuffled passes, so that an epoch is any number of steps. Position in a stream, crops and
strong views depend on seed, epoch and step only: not on the workers, the processes or an interruption.
"""

import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from dkl.data.augment import Augment
from dkl.data.batch import Batch, Unlabeled
from dkl.data.images import Images
from dkl.data.loading import prefetch, read_ahead
from dkl.data.planning import Batching, BatchPlan, StreamPlanner
from dkl.data.views import Change, changed_views
from dkl.errors import UserError
from dkl.runtime.device import on_accelerator

LABELED, UNLABELED = 2, 3
"""Parts of the key that seeds a stream; 0 and 1 would be the generators of ``BatchPlanner``."""


class StreamBatches:
    """``steps`` batches per epoch of ``labeled`` images, with ``ratio`` times as many of ``unlabeled`` ones if given.

    The augmentation of ``batching`` makes the weak views. ``strong`` changes another weak view of each unlabeled image
    into the strong one, in worker processes; without it the second view is weak too. ``labels`` are those of the
    labeled images. An epoch is by default as long as they are.

    Raises UserError if the unlabeled images do not fill a batch, or if the processes cannot share one equally.
    """

    def __init__(
        self,
        labeled: Images,
        batching: Batching,
        *,
        steps: int | None = None,
        unlabeled: Images | None = None,
        ratio: int = 0,
        strong: Change | None = None,
    ) -> None:
        size = batching.batch_size
        self.augment = batching.augment or Augment()
        self.augment.check(labeled.shape)
        self.augment.check_kind("images of semi-supervised training")
        if size % batching.world:
            raise UserError(
                f"a batch of {size} labeled images cannot be shared equally by {batching.world} processes: choose "
                "another trainer.batch_size"
            )
        if unlabeled is not None and len(unlabeled) < size * ratio:
            raise UserError(
                f"a step needs {size} x {ratio} unlabeled images, but there are {len(unlabeled)}: lower "
                "trainer.batch_size or data.unlabeled.ratio"
            )
        self.steps = steps or -(-len(labeled) // size)
        self.batching, self.hidden, self.read_strong = batching, None, None
        self.labels = labeled.labels.to(batching.device)
        self.windows = self.augment.windows(labeled.images.to(batching.device))
        self.planner = self._planner(labeled, batching, LABELED)
        if unlabeled is not None and ratio:
            self.hidden = unlabeled.labels.to(batching.device)
            self.unlabeled_windows = self.augment.windows(unlabeled.images.to(batching.device))
            self.unlabeled_planner = self._planner(unlabeled, replace(batching, batch_size=size * ratio), UNLABELED)
            if strong is not None:
                self.read_strong = partial(changed_views, unlabeled.images, self.augment, strong)

    def _planner(self, images: Images, batching: Batching, key: int) -> StreamPlanner:
        return StreamPlanner(
            count=len(images),
            size=images.shape[1:],
            batching=batching,
            augment=self.augment,
            steps=self.steps,
            key=key,
            second=key == UNLABELED,
        )

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; on a GPU each is prepared while the one before is in use."""
        batches = self._make(epoch)
        return prefetch(batches) if on_accelerator(self.labels) else batches

    def _make(self, epoch: int) -> Generator[Batch, None, None]:
        views = itertools.repeat(None) if self.hidden is None else self._views(epoch, self.hidden)
        for plan, unlabeled in zip(self.planner.epoch(epoch), views, strict=False):
            index = plan.chosen.to(self.labels.device, non_blocking=True)
            images = self.batching.scaled(self.augment.apply(self.windows, index, plan.draw))
            yield Batch(images, self.labels[index], 1, plan.first, plan.total, index, unlabeled)

    def _views(self, epoch: int, hidden: Tensor) -> Iterator[Unlabeled]:
        plans, windows = self.unlabeled_planner.epoch(epoch), self.unlabeled_windows
        planned: Iterable[tuple[BatchPlan, Tensor | None]] = ((plan, None) for plan in plans)
        if self.read_strong:
            planned = read_ahead(self.read_strong, plans, self.batching)
        for plan, strong in planned:
            index = plan.chosen.to(hidden.device, non_blocking=True)
            weak = self.augment.apply(windows, index, plan.draw)
            if strong is None:
                assert plan.second is not None
                strong = self.augment.apply(windows, index, plan.second)
            yield Unlabeled(self.batching.scaled(weak), self.batching.scaled(strong.to(hidden.device)), hidden[index])
