"""One batch, and how it is divided."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


def rank_slice(total: int, rank: int, world: int) -> slice:
    """The slice of ``total`` images that process ``rank`` of ``world`` gets, as ``torch.tensor_split`` divides them."""
    size, larger = divmod(total, world)
    start = rank * size + min(rank, larger)
    return slice(start, start + size + (rank < larger))


class Unlabeled(NamedTuple):
    """Two views of the same U unlabeled images: ``weak[U, C, H, W]`` and ``strong[U, C, H, W]``, in [0, 1].

    ``labels[U]`` are the hidden labels, for measurements only.
    """

    weak: Tensor
    strong: Tensor
    labels: Tensor


class Batch(NamedTuple):
    """``images[V·B, C, H, W]`` in [0, 1] and ``labels[V·B]``, int64: V views of the same B images, view after view.

    If pixels have labels, ``labels`` are masks ``[B, H, W]``.

    With several processes this is the share of one process: ``first`` is the position of its first image in the whole
    batch, which has ``total`` images. ``total`` is 0 if this is the whole batch. Both count one view only.
    ``indices[B]`` are the positions of the images in the dataset; None if the images come from several sets.
    ``unlabeled`` are the images of a semi-supervised step that have no labels, this process's share of them.
    """

    images: Tensor
    labels: Tensor
    views: int = 1
    first: int = 0
    total: int = 0
    indices: Tensor | None = None
    unlabeled: Unlabeled | None = None

    @property
    def share(self) -> float:
        """Fraction of the whole batch that this is, in (0, 1]."""
        return len(self.labels) / (self.views * self.total) if self.total else 1.0

    def parts(self, count: int) -> "Iterator[Batch]":
        """Cut the batch into ``count`` parts as processes would share it; all views of an image stay together.

        Unlabeled images are cut in the same proportions.
        """
        size = len(self.labels) // self.views
        for place in (rank_slice(size, number, count) for number in range(count)):
            images, labels = (
                torch.cat([view[place] for view in values.chunk(self.views)]) for values in (self.images, self.labels)
            )
            indices = None if self.indices is None else self.indices[place]
            first, total, unlabeled = self.first + place.start, self.total or size, None
            if self.unlabeled is not None:
                ratio = len(self.unlabeled.labels) // size
                unlabeled = Unlabeled(*(values[ratio * place.start : ratio * place.stop] for values in self.unlabeled))
            yield Batch(images, labels, self.views, first, total, indices, unlabeled)
