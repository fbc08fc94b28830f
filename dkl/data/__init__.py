"""Images and batches: digits, CIFAR-10/100, ``.npz`` files, image folders, ImageNet; augmentation; synthetic images."""

from dkl.data.augment import Augment
from dkl.data.batches import Batches
from dkl.data.download import fetch
from dkl.data.file_batches import FileBatches
from dkl.data.files import Files
from dkl.data.folders import image_files, imagenet
from dkl.data.generated import generated
from dkl.data.images import Batch, Images
from dkl.data.imageset import ImageSet
from dkl.data.loader import Loader, make_loader
from dkl.data.longtail import imagenet_lt, shots
from dkl.data.shards import Shards, shards
from dkl.data.sources import cifar, digits, image_folder, npz
from dkl.data.synthetic import Synthetic

__all__ = [
    "Augment",
    "Batch",
    "Batches",
    "FileBatches",
    "Files",
    "ImageSet",
    "Images",
    "Loader",
    "Shards",
    "Synthetic",
    "cifar",
    "digits",
    "fetch",
    "generated",
    "image_files",
    "image_folder",
    "imagenet",
    "imagenet_lt",
    "make_loader",
    "npz",
    "shards",
    "shots",
]
