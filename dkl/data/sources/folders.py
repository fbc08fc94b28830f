"""Folders of images with one subfolder per class; classes are numbered by sorted folder name."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dkl.data.images.encoded import DECODING_ERRORS, IMAGE_SUFFIXES
from dkl.data.images.image_files import ImageFiles
from dkl.data.images.in_memory import Images
from dkl.errors import UserError
from dkl.validation import CLASSES, SIDE


def _check_folders(*folders: Path, expected: str) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected {folder}/<class>/{expected}")


def class_names(folder: Path) -> list[str]:
    """Sorted names of the subfolders of ``folder``."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _read_folder(folder: Path, classes: list[str]) -> Images:
    """Read the images ``<folder>/<class>/*``, all of one size; a label is the position of the class in ``classes``.

    No class may be empty.
    """
    pixels: list[Tensor] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise UserError(f"{folder / name} holds no images; expected {', '.join(IMAGE_SUFFIXES)} files there")
        for path in paths:
            try:
                with Image.open(path) as image:
                    pixels.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
            except DECODING_ERRORS as error:
                raise UserError(f"{path} cannot be decoded: {error}; replace or remove it") from None
            if pixels[-1].shape != pixels[0].shape:
                raise UserError(
                    f"{path} is {tuple(pixels[-1].shape)}, other images are {tuple(pixels[0].shape)}: resize them to "
                    "one size, or use data=imagefiles"
                )
        labels += [label] * len(paths)
    if not pixels:
        raise UserError(f"{folder} has no class folders; expected {folder}/<class>/*.png")
    return Images(torch.stack(pixels), torch.tensor(labels))


def _check_same_classes(train: str, classes: list[str], test: str, others: list[str]) -> None:
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise UserError(
            f"{train} and {test} must have the same classes, but only one of them has {', '.join(odd[:5])}; make them "
            "the same"
        )


def image_folder(train: str, test: str) -> tuple[Images, Images]:
    """Read two folders ``<class>/*.png`` of images of one size into memory, as RGB.

    Raises UserError if a folder is missing, if the two do not have the same classes, if a class has no images, or if an
    image is damaged or of another size.
    """
    _check_folders(Path(train), Path(test), expected="*.png")
    classes = class_names(Path(train))
    _check_same_classes(train, classes, test, class_names(Path(test)))
    return _read_folder(Path(train), classes), _read_folder(Path(test), classes)


def _list_files(folder: Path, classes: list[str], size: int) -> ImageFiles:
    """List the files ``<folder>/<class>/*``, sorted; labels as in ``_read_folder``. No class may be empty."""
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
    return ImageFiles.from_names(folder, names, labels, size=size)


def image_files(
    train: str, test: str, num_classes: Annotated[int, CLASSES], size: Annotated[int, SIDE]
) -> tuple[ImageFiles, ImageFiles]:
    """List two folders ``<class>/*.jpg`` of images of any sizes, which are read while training.

    Raises UserError if a folder is missing, or if the two do not have the same ``num_classes`` classes.
    """
    _check_folders(Path(train), Path(test), expected="*.jpg")
    classes, others = class_names(Path(train)), class_names(Path(test))
    if len(classes) != num_classes:
        raise UserError(
            f"{train} has {len(classes)} class folders, but data.num_classes={num_classes}: set "
            f"data.num_classes={len(classes)}, or complete the dataset"
        )
    _check_same_classes(train, classes, test, others)
    return _list_files(Path(train), classes, size), _list_files(Path(test), classes, size)
