"""What training and validation know of batches, and which batches go with which images."""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, Protocol

from torch import Tensor

from dkl.data.images.base import ImageSet
from dkl.data.images.encoded import EncodedImages
from dkl.data.images.memory import Images
from dkl.data.loading.batch import Batch
from dkl.data.loading.batches import Batches
from dkl.data.loading.file_batches import FileBatches


class Loader(Protocol):
    """Batches of one split; ``labels`` are all of its labels, on the device of the batches."""

    labels: Tensor

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""


@singledispatch
def make_loader(images: ImageSet, batch_size: int, **options: Any) -> Loader:
    """Batches of ``images``; ``options`` are those of ``Batches`` (in memory) or ``FileBatches``."""
    raise TypeError(f"there are no batches of {type(images).__name__}")


make_loader.register(Images, Batches)
make_loader.register(EncodedImages, FileBatches)
