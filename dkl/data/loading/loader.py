"""The interface of batches for training and validation, and which class serves which images."""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, Protocol

from torch import Tensor

from dkl.data.images.encoded import EncodedImages
from dkl.data.images.image_set import ImageSet
from dkl.data.images.in_memory import Images
from dkl.data.images.labeled_pixels import SegmentationSet
from dkl.data.loading.batch import Batch
from dkl.data.loading.batches import Batches
from dkl.data.loading.file_batches import FileBatches
from dkl.data.loading.pixel_batches import PixelBatches
from dkl.errors import UserError


class Loader(Protocol):
    """Batches of one split; ``labels`` are all of its labels, on the device of the batches."""

    labels: Tensor

    def __len__(self) -> int:
        """Number of batches per epoch."""

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""


@singledispatch
def make_loader(images: ImageSet, batch_size: int, **options: Any) -> Loader:
    """Make batches of ``images``; ``options`` are those of ``Batches`` or of ``ReadBatches`` with ``augment``.

    Register other kinds with ``make_loader.register``. Raises UserError on an unregistered kind.
    """
    raise UserError(
        f"data.source returned {type(images).__name__}, for which no loader is registered: return "
        "Images, EncodedImages or a SegmentationSet, or call make_loader.register"
    )


make_loader.register(Images, Batches)
make_loader.register(EncodedImages, FileBatches)
make_loader.register(SegmentationSet, PixelBatches)
