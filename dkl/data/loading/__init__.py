"""Batches for training and validation: which images, in which order, for which process, augmented and prefetched.

``make_loader`` picks ``Batches`` for images in memory and ``FileBatches`` for encoded images. Both get the indices and
random choices of each batch from a ``BatchPlanner``, and yield ``Batch``. ``StreamBatches`` are for semi-supervised
training.
"""

from dkl.data.loading.batch import Batch, Unlabeled
from dkl.data.loading.batches import Batches
from dkl.data.loading.file_batches import FileBatches
from dkl.data.loading.loader import Loader, make_loader
from dkl.data.loading.streams import StreamBatches

__all__ = ["Batch", "Batches", "FileBatches", "Loader", "StreamBatches", "Unlabeled", "make_loader"]
