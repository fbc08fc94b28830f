"""Sources of image files: one folder per class, ImageNet, ImageNet-LT's lists, tar shards, and folders with masks.

Files are listed at the start and read while training, except by ``image_folder``. Classes are numbered by sorted folder
name. A zip of class folders is read in place, as if it were unpacked.
"""

import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dkl.console import say
from dkl.data.images import IMAGE_SUFFIXES, ImageFiles, Images, ShardedImages
from dkl.data.pixels import PixelLabels, SegmentationFiles
from dkl.errors import UserError
from dkl.storage.files import ARCHIVE_ERRORS, data_offset
from dkl.validation import CLASSES, LABEL, MEAN, SIDE, Range

Listed = ImageFiles | ShardedImages
"""Images in folders, or in a zip of them."""

HOW_TO_GET_IMAGENET = (
    "It is free for research at https://image-net.org/download after registration (ILSVRC2012, Task 1 and 2, training "
    "and validation images): unpack it into one folder per class, the validation images too. Put it there, or set "
    "DKL_DATA_DIR or data.source.root"
)


def image_folder(train: str, test: str) -> tuple[Images, Images]:
    """Read two folders ``<class>/*.png`` of images of one size into memory, as RGB; each may be a zip.

    Raises UserError if a folder is missing, if the two do not have the same classes, if a class has no images, or if an
    image is damaged or of another size.
    """
    classes = _shared_classes(train, test, expected="*.png")
    return _read_folder(Path(train), classes), _read_folder(Path(test), classes)


def image_files(
    train: str, test: str, num_classes: Annotated[int, CLASSES], size: Annotated[int, SIDE]
) -> tuple[Listed, Listed]:
    """List two folders ``<class>/*.jpg`` of images of any sizes, which are read while training; each may be a zip.

    Raises UserError if a folder is missing, or if the two do not have the same ``num_classes`` classes.
    """
    classes = _shared_classes(train, test, expected="*.jpg", count=num_classes)
    return _list_folder(Path(train), classes, size), _list_folder(Path(test), classes, size)


def imagenet(
    root: str,
    num_classes: Annotated[int, CLASSES],
    size: Annotated[int, SIDE],
    train: str | None = "train",
    val: str = "val",
) -> tuple[Listed, Listed]:
    """List ``<root>/<train>/<wnid>/*.JPEG`` and ``<root>/<val>/<wnid>/*.JPEG``; classes are numbered by sorted wnid.

    If a folder is missing, the zip of its name is read, such as ``<root>/val.zip``; ``val`` may also name one.
    Evaluations need no training images: if ``train`` is None, the validation images are returned in their place. Raises
    UserError if folders or classes are missing.
    """
    folders = []
    for folder in (Path(root) / (train or val), Path(root) / val):
        archive = folder.with_name(f"{folder.name}.zip")
        folders.append(archive if archive.is_file() and not folder.exists() else folder)
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise UserError(
            f"ImageNet is not under {root}: there is no {' and no '.join(missing)}. Expected are "
            f"{folders[0]}/<wnid>/*.JPEG (1,281,167 images in 1,000 folders such as n01440764) and "
            f"{folders[1]}/<wnid>/*.JPEG (50,000 images, or {folders[1]}.zip of these folders; with "
            f"+data.source.train=null, dkl evaluate needs only these). {HOW_TO_GET_IMAGENET}"
        )
    if len(_class_names(folders[1])) < min(2, num_classes):  # a zip may have all images in one folder
        raise UserError(
            f"{folders[1]} has no class folders: move its images into one folder per class, as in {folders[0]} (the "
            "development kit ILSVRC2012_devkit_t12.tar.gz lists the class of each image)"
        )
    return image_files(str(folders[0]), str(folders[1]), num_classes, size)


def _class_names(folder: Path) -> list[str]:
    """Sorted names of the subfolders of ``folder``, or of the innermost folders with images in a zip."""
    if not folder.is_dir():
        return sorted({name for name, _ in _zip_members(folder)})
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _zip_members(path: Path) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """The images in folders of a zip by folder and name. Raises UserError if it cannot be read in place."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{path} is neither a folder nor a zip ({error}): download it again") from None
    images: dict[tuple[str, str], zipfile.ZipInfo] = {}
    for info in entries:
        place = PurePosixPath(info.filename).parts[-2:]
        if len(place) == 2 and _is_image(place[1]) and images.setdefault((place[0], place[1]), info) is not info:
            other = images[place[0], place[1]].filename
            raise UserError(f"{path} holds {other} and {info.filename}: zip one folder of classes alone")
    usable = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    for info in images.values():
        if info.compress_type not in usable or info.flag_bits & 1:
            raise UserError(f"{info.filename} in {path} is encrypted or neither stored nor deflated: zip it again")
    return images


def _shared_classes(train: str, test: str, *, expected: str, count: int | None = None) -> list[str]:
    """The classes of both folders. Raises UserError if they differ, or are not ``count`` if that is given."""
    for folder in (train, test):
        if not Path(folder).exists():
            raise UserError(f"there is no folder {folder}; expected {folder}/<class>/{expected}")
    classes, others = _class_names(Path(train)), _class_names(Path(test))
    if count not in (None, len(classes)):
        raise UserError(
            f"{train} has {len(classes)} class folders, but data.num_classes={count}: set "
            f"data.num_classes={len(classes)}, or complete the dataset"
        )
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise UserError(
            f"{train} and {test} must have the same classes, but only one of them has {', '.join(odd[:5])}; make them "
            "the same"
        )
    if not classes:
        raise UserError(f"{train} has no class folders; expected {train}/<class>/{expected}")
    return classes


def _list_images(folder: Path) -> list[str]:
    """Sorted names of the images in ``folder``. Raises UserError if it has none."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    images = list(filter(_is_image, names))
    if not images:
        raise UserError(f"{folder} holds no images; expected {', '.join(IMAGE_SUFFIXES)} files there")
    return images


def _list_folder(folder: Path, classes: list[str], size: int) -> Listed:
    """List the files ``<folder>/<class>/*``, sorted; a label is the position of the class in ``classes``."""
    if not folder.is_dir():
        return _list_zip(folder, classes, size)
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _list_images(folder / name)
        names += [f"{name}/{file}" for file in files]
        labels += [label] * len(files)
    return ImageFiles.from_names(folder, names, labels, size=size)


def _list_zip(path: Path, classes: list[str], size: int) -> ShardedImages:
    """List the images ``…/<class>/*`` of a zip as ``_list_folder`` does: names, order and hash are those of files."""
    entries, numbers = [], {name: label for label, name in enumerate(classes)}
    try:
        with path.open("rb") as file:
            for (folder, name), info in sorted(_zip_members(path).items()):
                deflated = info.compress_size if info.compress_type else 0
                span = data_offset(file, info), info.file_size, deflated
                entries.append((f"{folder}/{name}", *span, numbers[folder]))
    except (OSError, struct.error) as error:
        raise UserError(f"{path} is damaged ({error}): download it again") from None
    return _sharded([path], [entries], size)


def _read_folder(folder: Path, classes: list[str]) -> Images:
    """Read the images ``<folder>/<class>/*``, all of one size, labeled as by ``_list_folder``."""
    files, pixels = _list_folder(folder, classes, size=0), list[Tensor]()  # the images keep their own size
    for index in range(len(files)):
        pixels.append(torch.from_numpy(files.pixels(index)).permute(2, 0, 1))
        if pixels[-1].shape != pixels[0].shape:
            raise UserError(
                f"{files.location(index)} is {tuple(pixels[-1].shape)}, other images are {tuple(pixels[0].shape)}: "
                "resize them to one size, or use data=imagefiles"
            )
    return Images(torch.stack(pixels), files.labels)


MANY_ABOVE, FEW_BELOW = 100, 20  # training images per class
PUBLISHED_SHOTS = {"many": 385, "medium": 479, "few": 136}  # classes of ImageNet-LT per shot group
SAMPLE = 1000  # files of a list whose existence is checked

EXPECTED_LINES = "lines such as train/n01440764/x.JPEG 0"

HOW_TO_GET_LISTS = (
    "The published lists, ImageNet_LT_train.txt and ImageNet_LT_test.txt, are linked from "
    "https://github.com/zhmiao/OpenLongTailRecognition-OLTR. Put them there, or set DKL_DATA_DIR, or "
    "data.source.train_list and data.source.test_list"
)


def shot_groups(per_class: Tensor) -> dict[str, Tensor]:
    """Group classes by training images ``per_class[C]``: a bool mask [C] for each of ``many``, ``medium``, ``few``.

    A class has many shots if it has over 100 training images, few if it has under 20, and a medium number otherwise
    (Liu et al. 2019).
    """
    many, few = per_class > MANY_ABOVE, per_class < FEW_BELOW
    return {"many": many, "medium": ~many & ~few, "few": few}


def imagenet_lt(
    root: str, train_list: str, test_list: str, num_classes: Annotated[int, CLASSES], size: Annotated[int, SIDE]
) -> tuple[ImageFiles, ImageFiles]:
    """Return the images under ``root`` that the lists name, one ``relative/path label`` per line.

    ImageNet-LT (Liu et al. 2019) is a long-tailed subset of ImageNet. Prints how many classes have many, medium and few
    images. Raises UserError on an invalid line, an image listed twice, a class without training images, or missing
    files.
    """
    paths = [Path(train_list), Path(test_list)]
    labels = [_read_list(path, num_classes) for path in paths]
    if both := labels[0].keys() & labels[1].keys():
        raise UserError(
            f"{test_list} tests on {len(both):,} images that {train_list} trains on, such as {min(both)}; download the "
            "published lists"
        )
    for names, path in zip(labels, paths, strict=True):
        _check_files_exist(Path(root), list(names), path)
    train, test = (ImageFiles.from_names(root, list(split), list(split.values()), size=size) for split in labels)
    per_class = train.per_class(num_classes)
    _check_no_class_is_empty(per_class, train_list, "download the published lists")
    counts = {name: int(mask.sum()) for name, mask in shot_groups(per_class).items()}
    classes, published = ("/".join(map(str, shots.values())) for shots in (counts, PUBLISHED_SHOTS))
    say(f"ImageNet-LT: {len(train):,} + {len(test):,} images, classes with many/medium/few: {classes}")
    if counts != PUBLISHED_SHOTS:
        say(f"warning: the published list has {published} many/medium/few classes; {train_list} differs from it")
    return train, test


def _check_no_class_is_empty(per_class: Tensor, source: str, fix: str) -> None:
    if empty := (per_class == 0).nonzero().flatten().tolist():
        raise UserError(f"{source} has no image of {len(empty)} of {len(per_class)} classes, such as {empty[0]}: {fix}")


def _read_list(path: Path, num_classes: int) -> dict[str, int]:
    """Labels by path, in the order of the list. Raises UserError on the first invalid line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"there is no list {path}: expected {EXPECTED_LINES}. {HOW_TO_GET_LISTS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of text lines: {error}; download it again") from None
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = _read_line(line.strip(), f"{path}, line {number}", num_classes)
        if name in labels:
            raise UserError(f"{path}, line {number}: {name} is listed twice; remove one of the lines")
        labels[name] = label
    if not labels:
        raise UserError(f"{path} is empty: expected {EXPECTED_LINES}. {HOW_TO_GET_LISTS}")
    return labels


def _read_line(line: str, place: str, num_classes: int) -> tuple[str, int]:
    """Path and label of one line; ``place`` names the line in error messages."""
    name, _, label = line.rpartition(" ")
    path = PurePosixPath(name)
    if not name or not label.isdecimal():
        raise UserError(f"{place}: expected a relative path, a space and a label, not {line!r}")
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: {name} must be relative to data.source.root, such as train/n01440764/x.JPEG")
    if int(label) >= num_classes:
        raise UserError(
            f"{place}: label {label} is not below data.num_classes={num_classes}; number the labels from 0, or set "
            f"data.num_classes"
        )
    return name, int(label)


def _check_files_exist(root: Path, names: list[str], path: Path) -> None:
    """Raise UserError if the first file, or one of a fixed random sample, is not under ``root``."""
    # A sample, because checking 166,000 files takes minutes on a network disk.
    checked = {names[0], *random.Random(0).sample(names, min(SAMPLE, len(names)))}
    if missing := sorted(name for name in checked if not (root / name).is_file()):
        raise UserError(
            f"{len(missing):,} of {len(checked):,} checked files of {path} are missing under {root}, such as "
            f"{root / missing[0]}. They are ImageNet's, in <split>/<wnid>/*.JPEG. {HOW_TO_GET_IMAGENET}"
        )


Entry = tuple[str, int, int, int, int]
"""Key; offset, length and deflated length of the image in bytes; label."""


def tar_shards(
    root: str,
    num_classes: Annotated[int, CLASSES],
    size: Annotated[int, SIDE],
    train: str | None = "*train*.tar",
    val: str = "*val*.tar",
) -> tuple[ShardedImages, ShardedImages]:
    """Index shards as WebDataset writes them (``key.jpg``, ``key.cls``), which match ``<root>/<train>`` and ``<val>``.

    Only the tar headers are read here. An image is later read from its place in its shard, so that batches equal those
    of the unpacked files, in any order and with any number of workers. A ``train`` of None is as in ``imagenet``.
    Raises UserError if there are no shards, if one is damaged, or if a class has no training image.
    """
    training, testing = (_index_shards(root, pattern, num_classes, size) for pattern in (train or val, val))
    fix = "download the other shards, or set data.num_classes"
    _check_no_class_is_empty(training.per_class(num_classes), f"{root}/{train}", fix)
    return training, testing


def _index_shards(root: str, pattern: str, num_classes: int, size: int) -> ShardedImages:
    """Index all shards ``<root>/<pattern>``."""
    paths = sorted(Path(root).glob(pattern))
    if not paths:
        raise UserError(
            f"there are no shards {root}/{pattern}: expected .tar files as WebDataset writes them, with <key>.jpg and "
            "<key>.cls in them (timm/imagenet-1k-wds on Hugging Face has ImageNet's). Put them there, or set "
            "DKL_DATA_DIR, data.source.root, or the patterns data.source.train and data.source.val"
        )
    with ThreadPoolExecutor() as threads:
        shards = list(threads.map(lambda path: _index_shard(path, num_classes), paths))
    return _sharded(paths, shards, size)


def _sharded(paths: Sequence[Path], shards: Sequence[Sequence[Entry]], size: int) -> ShardedImages:
    """The images of the files ``paths``, with the entries of each."""
    keys, *spans, labels = zip(*(entry for shard in shards for entry in shard), strict=True)
    return ShardedImages(
        tuple(paths),
        np.array([os.fsencode(key) for key in keys], np.bytes_),
        np.repeat(np.arange(len(paths)), [len(shard) for shard in shards]),
        np.array(spans, np.int64).T,
        torch.tensor(labels, dtype=torch.int64),
        size,
    )


def _index_shard(path: Path, num_classes: int) -> list[Entry]:
    """List the images of one shard, sorted by key. Raises UserError if one has no label or the shard is damaged."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                # A key ends at the first dot of the file name, as in WebDataset.
                folder, slash, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = folder + slash + stem
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif suffix == "cls" and (file := archive.extractfile(member)):
                    text = file.read()
                    if not text.strip().isdigit() or int(text) >= num_classes:
                        raise UserError(
                            f"{member.name} in {path}: expected a class number below data.num_classes={num_classes}, "
                            f"not {text[:20].decode(errors='replace')!r}"
                        )
                    labels[key] = int(text)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a shard, a plain .tar file: {error}; download it again") from None
    if odd := sorted(images.keys() ^ labels.keys()):
        raise UserError(
            f"{path} must hold an image and a .cls file for each key; {odd[0]} has only one of them; download it again"
        )
    if not images:
        raise UserError(f"{path} holds no images; expected <key>.jpg and <key>.cls files in it")
    return [(key, *images[key], 0, labels[key]) for key in sorted(images)]


def segmentation_folders(
    root: str,
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL],
    size: Annotated[Sequence[int], SIDE],
    *,
    train: str = "train",
    test: str = "val",
    first_class: Annotated[int, Range(0, 1)] = 0,
    mean: Annotated[Sequence[float] | None, MEAN] = None,
    where: str = "set data.source.root, or DKL_DATA_DIR",
) -> tuple[SegmentationFiles, SegmentationFiles]:
    """List ``<root>/images/<split>/*`` and ``<root>/annotations/<split>/*.png`` of the splits ``train`` and ``test``.

    A mask has the name of its image, with the ending ``.png``. ``size`` (H, W) is the training crop, ``mean`` the color
    of padding in [0, 1]. With ``first_class`` 1, classes are numbered from 1 and 0 is ignored. ``where`` says in errors
    how to get the data. Raises UserError if a folder or a mask is missing, or if a mask and its image differ in size.
    """
    pixels = PixelLabels.of_source(num_classes, ignore_index, mean, first_class)
    splits = []
    for split in (train, test):
        images, annotations = Path(root) / "images" / split, Path(root) / "annotations" / split
        for folder in (images, annotations):
            if not folder.is_dir():
                raise UserError(f"there is no folder {folder}: {where}")
        names = [(name, f"{Path(name).stem}.png") for name in _list_images(images)]
        if lost := [mask for _, mask in names if not (annotations / mask).is_file()]:
            raise UserError(f"{len(lost)} images in {images} have no mask; the first lacks {annotations / lost[0]}")
        splits.append(SegmentationFiles.from_folders(images, annotations, names, pixels=pixels, size=size))
    return splits[0], splits[1]
