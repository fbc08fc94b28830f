"""Images and batches.

seeding                 every random choice from a seed
augment, joint, views   random changes: of batches, of images with masks, image by image
images, pixels          labeled images: in memory, in files, in shards or a zip; with a label per pixel
synthetic               images from a diffusion model, which are mixed with the real ones
folders, sources        functions that return a training and a test set: of files, in memory
corruptions             test images under common corruptions
batch, planning         one batch; which images it has, and the random choices for them
loading, streams        batches for training and validation; for semi-supervised training
"""

import dkl.full
from dkl.data.augment import Augment, Center
from dkl.data.batch import Batch, Unlabeled
from dkl.data.corruptions import CORRUPTIONS, SEVERITIES, Corruptions, check_corruptions
from dkl.data.folders import (
    image_files,
    image_folder,
    imagenet,
    imagenet_lt,
    segmentation_folders,
    shot_groups,
    tar_shards,
)
from dkl.data.images import EncodedImages, ImageFiles, Images, ImageSet, ShardedImages
from dkl.data.loading import Batches, FileBatches, Loader, make_loader
from dkl.data.pixels import SegmentationArrays, SegmentationFiles, SegmentationSet
from dkl.data.planning import Batching, SyntheticMixing
from dkl.data.sources import cifar, digit_scenes, digits, generated, noisy_patterns, npz
from dkl.data.streams import StreamBatches
from dkl.data.synthetic import SyntheticImages
from dkl.data.views import StrongView
from dkl.storage.fetch import fetch
