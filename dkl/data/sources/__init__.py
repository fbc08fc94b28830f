"""Sources of images. A source is a function that returns a training and a test ``ImageSet``.

A config in ``configs/data`` names its source by ``source._target_``. A source of your own needs no entry here: write a
function with this return type in any importable module, and a YAML file that names it.
"""

from dkl.data.sources.cifar import cifar
from dkl.data.sources.corruptions import CORRUPTIONS, SEVERITIES, Corruptions, check_corruptions
from dkl.data.sources.digits import digits
from dkl.data.sources.folders import image_files, image_folder
from dkl.data.sources.generated import generated
from dkl.data.sources.imagenet import imagenet
from dkl.data.sources.imagenet_lt import imagenet_lt
from dkl.data.sources.labeled_pixels import digit_scenes, segmentation_folders
from dkl.data.sources.noisy_patterns import noisy_patterns
from dkl.data.sources.npz import npz
from dkl.data.sources.tar_shards import tar_shards
from dkl.storage.fetch import fetch

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruptions",
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
    "noisy_patterns",
    "npz",
    "segmentation_folders",
    "tar_shards",
]
