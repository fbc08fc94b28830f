"""Image files in a folder a class, listed and not read: anyone's own, and ImageNet."""

import os
from pathlib import Path

from dkl.data.images.files import Files
from dkl.data.sources.memory import IMAGE_SUFFIXES
from dkl.errors import UserError

FileSplits = tuple[Files, Files]

HOW_TO_GET_IMAGENET = (
    "It is free for research at https://image-net.org/download after registration (ILSVRC2012, Task 1 and 2, training "
    "and validation images): unpack one folder a class, the validation images too. Put it there, or set DKL_DATA_DIR "
    "or data.source.root to where it is"
)


def _classes(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _list(folder: Path, classes: list[str], size: int) -> Files:
    """Images ``<folder>/<class>/*``, sorted, labelled by the place of the class in ``classes``; none may be empty."""
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        with os.scandir(folder / name) as entries:
            files = sorted(entry.name for entry in entries)
        found = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES) and not file.startswith(".")]
        if not found:
            raise UserError(f"{folder / name} holds no images; expected {', '.join(IMAGE_SUFFIXES)} files there")
        names += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
    return Files.of(folder, names, labels, size=size)


def image_files(train: str, test: str, num_classes: int, size: int) -> FileSplits:
    """Two folders ``<class>/*.jpg`` of images of any sizes, read while training; classes are numbered by sorted name.

    Raises UserError where the two do not have the same ``num_classes`` classes.
    """
    for folder in (Path(train), Path(test)):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected {folder}/<class>/*.jpg")
    classes, others = _classes(Path(train)), _classes(Path(test))
    if len(classes) != num_classes:
        raise UserError(
            f"{train} has {len(classes)} folders of classes, but data.num_classes={num_classes}: set "
            f"data.num_classes={len(classes)}, or complete the data set"
        )
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise UserError(f"{train} and {test} must have the same classes; only one of them has {', '.join(odd[:5])}")
    return _list(Path(train), classes, size), _list(Path(test), classes, size)


def imagenet(root: str, num_classes: int, size: int, train: str = "train", val: str = "val") -> FileSplits:
    """ImageNet from ``<root>/<train>/<wnid>/*.JPEG`` and ``<root>/<val>/<wnid>/*.JPEG``; wnids in order are classes."""
    folders = [Path(root) / train, Path(root) / val]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(
            f"ImageNet is not under {root}: there is no {' and no '.join(missing)}. Expected: "
            f"{folders[0]}/<wnid>/*.JPEG (1,281,167 images in 1,000 folders such as n01440764) and "
            f"{folders[1]}/<wnid>/*.JPEG (50,000). {HOW_TO_GET_IMAGENET}"
        )
    if not _classes(folders[1]):
        raise UserError(
            f"{folders[1]} has no folders of classes: move its images into one a class, as in {folders[0]} (the class "
            "of each is in the development kit, ILSVRC2012_devkit_t12.tar.gz)"
        )
    return image_files(str(folders[0]), str(folders[1]), num_classes, size)
