"""Labeled images, however they are stored; every class here has the interface of ``ImageSet`` except ``Synthetic``.

``Images`` holds pixels in memory. ``EncodedImages`` are decoded when used: ``ImageFiles`` are separate files,
``ShardedImages`` lie in tar shards. ``Synthetic`` reads the images of huge ``.npz`` files in place (``npz_arrays``).
"""

from dkl.data.images.encoded import EncodedImages
from dkl.data.images.image_files import ImageFiles
from dkl.data.images.image_set import ImageSet
from dkl.data.images.in_memory import Images
from dkl.data.images.sharded import ShardedImages
from dkl.data.images.synthetic import Synthetic

__all__ = ["EncodedImages", "ImageFiles", "ImageSet", "Images", "ShardedImages", "Synthetic"]
