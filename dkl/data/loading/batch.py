"""One batch, as training sees it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dkl.data.loading.plan import share


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
