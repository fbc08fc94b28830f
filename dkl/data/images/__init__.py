"""Labeled images, however they are stored. All except ``SyntheticImages`` have the interface of ``ImageSet``.

``Images`` holds pixels in memory. ``EncodedImages`` are decoded when used: ``ImageFiles`` are separate files,
``ShardedImages`` lie in tar shards. A ``SegmentationSet`` has a label per pixel. ``SyntheticImages`` reads huge
``.npz`` files in place, by ``npz_arrays``.
"""

from dkl.data.images.encoded import EncodedImages
from dkl.data.images.image_files import ImageFiles
from dkl.data.images.image_set import ImageSet
from dkl.data.images.in_memory import Images
from dkl.data.images.labeled_pixels import (
    Pair,
    PixelLabels,
    SegmentationArrays,
    SegmentationFiles,
    SegmentationSet,
)
from dkl.data.images.sharded import ShardedImages
from dkl.data.images.synthetic import SyntheticImages

__all__ = [
    "EncodedImages",
    "ImageFiles",
    "ImageSet",
    "Images",
    "Pair",
    "PixelLabels",
    "SegmentationArrays",
    "SegmentationFiles",
    "SegmentationSet",
    "ShardedImages",
    "SyntheticImages",
]
