"""Images and batches.

``sources`` load datasets (digits, CIFAR, ``.npz`` files, image folders, ImageNet); ``images`` hold them;
``transforms`` change them at random; ``loading`` makes batches. ``seeding`` derives every random choice from a seed,
and ``shot_groups`` sorts the classes of long-tailed datasets.
"""

from dkl.data.images import (
    EncodedImages,
    ImageFiles,
    Images,
    ImageSet,
    SegmentationArrays,
    SegmentationFiles,
    SegmentationSet,
    ShardedImages,
    SyntheticImages,
)
from dkl.data.loading import Batch, Batches, FileBatches, Loader, StreamBatches, Unlabeled, make_loader
from dkl.data.shot_groups import shot_groups
from dkl.data.sources import (
    CORRUPTIONS,
    SEVERITIES,
    Corruptions,
    check_corruptions,
    cifar,
    digit_scenes,
    digits,
    fetch,
    generated,
    image_files,
    image_folder,
    imagenet,
    imagenet_lt,
    noisy_patterns,
    npz,
    segmentation_folders,
    tar_shards,
)
from dkl.data.transforms import Augment, StrongView

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Augment",
    "Batch",
    "Batches",
    "Corruptions",
    "EncodedImages",
    "FileBatches",
    "ImageFiles",
    "ImageSet",
    "Images",
    "Loader",
    "SegmentationArrays",
    "SegmentationFiles",
    "SegmentationSet",
    "ShardedImages",
    "StreamBatches",
    "StrongView",
    "SyntheticImages",
    "Unlabeled",
    "check_corruptions",
    "cifar",
    "digit_scenes",
    "digits",
    "fetch",
    "generated",
    "image_files",
    "image_folder",
    "imagenet",
    "imagenet_lt",
    "make_loader",
    "noisy_patterns",
    "npz",
    "segmentation_folders",
    "shot_groups",
    "tar_shards",
]
