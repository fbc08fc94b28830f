"""Images and batches: digits, CIFAR-10/100, ``.npz`` files and image folders; augmentation; synthetic images."""

from dkl.data.augment import Augment
from dkl.data.batches import Batches
from dkl.data.download import fetch
from dkl.data.images import Batch, Images
from dkl.data.sources import cifar, digits, image_folder, npz
from dkl.data.synthetic import Synthetic

__all__ = [
    "Augment",
    "Batch",
    "Batches",
    "Images",
    "Synthetic",
    "cifar",
    "digits",
    "fetch",
    "image_folder",
    "npz",
]
