"""Images and batches: digits, CIFAR-10/100, ``.npz`` files, image folders, ImageNet; augmentation; synthetic images."""

from dkl.data.images.base import ImageSet
from dkl.data.images.files import Files
from dkl.data.images.memory import Images
from dkl.data.images.synthetic import Synthetic
from dkl.data.loading.batch import Batch
from dkl.data.loading.batches import Batches
from dkl.data.loading.file_batches import FileBatches
from dkl.data.loading.loader import Loader, make_loader
from dkl.data.sources.download import fetch
from dkl.data.sources.folders import image_files, imagenet
from dkl.data.sources.generated import generated
from dkl.data.sources.imagenet_lt import imagenet_lt, shots
from dkl.data.sources.memory import cifar, digits, image_folder, npz
from dkl.data.sources.shards import Shards, shards
from dkl.data.transforms.augment import Augment

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
