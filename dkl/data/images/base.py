"""What is common to labelled images in memory and in files: subsets with all classes alike, images per class."""

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from dkl.errors import UserError

Set = TypeVar("Set", bound="ImageSet")


class ImageSet(ABC):
    """Images with ``labels[N]``, int64."""

    labels: Tensor

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of what a model gets to see."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash that tells one set from another, in hex."""

    @abstractmethod
    def tensor(self) -> Tensor:
        """uint8 [N, C, H, W], as validation sees them."""

    @abstractmethod
    def _part(self: Set, mask: Tensor) -> Set:
        """Those where ``mask[N]`` is true."""

    def __len__(self) -> int:
        return len(self.labels)

    def per_class(self, num_classes: int) -> Tensor:
        """How many images each class has: int64 [num_classes]."""
        return self.labels.bincount(minlength=num_classes)

    def balanced(self: Set, size: int | None) -> Set:
        """The first ``size`` images taken from all classes alike, or all of them where ``size`` is None."""
        if size is None or size == len(self):
            return self
        if not 1 <= size <= len(self):
            raise UserError(
                f"a subset of {size} images cannot be taken from {len(self)}: lower data.train_size or data.test_size"
            )
        return self._part(self._first(size))

    def holdout(self: Set, count: int) -> tuple[Set, Set]:
        """The rest, and the first ``count`` images taken from all classes alike."""
        if not 1 <= count < len(self):
            raise UserError(
                f"selection.holdout={count} images cannot be held out of {len(self)}: choose between 1 and "
                f"{len(self) - 1}"
            )
        held = self._first(count)
        return self._part(~held), self._part(held)

    def _first(self, size: int) -> Tensor:
        """Mask of the first ``size`` images taken from all classes alike."""
        by_class = self.labels.argsort(stable=True)
        _, counts = self.labels[by_class].unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        rank = torch.empty_like(self.labels)
        rank[by_class] = torch.arange(len(self)) - starts.repeat_interleave(counts)
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[rank.argsort(stable=True)[:size]] = True
        return mask
