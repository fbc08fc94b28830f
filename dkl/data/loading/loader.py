"""The interface of batches for training and validation, and which class serves which images."""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, Protocol

from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.data.images.image_set import ImageSet
from dkl.data.images.in_memory import Images
from dkl.data.loading.batch import Batch
from dkl.data.loading.batches import Batches
from dkl.data.loading.file_batches import FileBatches


class Loader(Protocol):
    """Batches of one split; ``labels`` are all of its labels, on the device of the batches."""

    labels: Tensor

    def __len__(self) -> int:
        """Number of batches per epoch."""

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""


@singledispatch
def make_loader(images: ImageSet, batch_size: int, **options: Any) -> Loader:
    """Make batches of ``images``; ``options`` are those of ``Batches`` or ``FileBatches``.

    Other kinds of images take part by ``make_loader.register``. Raises TypeError on a kind that did not.
    """
    raise TypeError(f"no loader is registered for {type(images).__name__}: call make_loader.register for it")


make_loader.register(Images, Batches)
make_loader.register(EncodedImages, FileBatches)
