"""ImageNet (ILSVRC2012) in folders, one per class."""

from pathlib import Path
from typing import Annotated

from dkl.data.images.image_files import ImageFiles
from dkl.data.sources.folders import class_names, image_files
from dkl.errors import UserError
from dkl.validation import CLASSES, SIDE

HOW_TO_GET_IMAGENET = (
    "It is free for research at https://image-net.org/download after registration (ILSVRC2012, Task 1 and 2, training "
    "and validation images): unpack it into one folder per class, the validation images too. Put it there, or set "
    "DKL_DATA_DIR or data.source.root"
)


def imagenet(
    root: str,
    num_classes: Annotated[int, CLASSES],
    size: Annotated[int, SIDE],
    train: str = "train",
    val: str = "val",
) -> tuple[ImageFiles, ImageFiles]:
    """List ``<root>/<train>/<wnid>/*.JPEG`` and ``<root>/<val>/<wnid>/*.JPEG``; classes are numbered by sorted wnid.

    Raises UserError if folders or classes are missing.
    """
    folders = [Path(root) / train, Path(root) / val]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(
            f"ImageNet is not under {root}: there is no {' and no '.join(missing)}. Expected are "
            f"{folders[0]}/<wnid>/*.JPEG (1,281,167 images in 1,000 folders such as n01440764) and "
            f"{folders[1]}/<wnid>/*.JPEG (50,000 images). {HOW_TO_GET_IMAGENET}"
        )
    if not class_names(folders[1]):
        raise UserError(
            f"{folders[1]} has no class folders: move its images into one folder per class, as in {folders[0]} (the "
            "development kit ILSVRC2012_devkit_t12.tar.gz lists the class of each image)"
        )
    return image_files(str(folders[0]), str(folders[1]), num_classes, size)
