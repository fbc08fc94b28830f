"""Images and batches: digits, CIFAR-10/100, ``.npz`` files and image folders."""

from dkl.data.download import fetch
from dkl.data.images import Augment, Batch, Batches, Images
from dkl.data.sources import cifar, digits, image_folder, npz

__all__ = ["Augment", "Batch", "Batches", "Images", "cifar", "digits", "fetch", "image_folder", "npz"]
