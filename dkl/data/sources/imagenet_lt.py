"""ImageNet-LT (Liu et al. 2019): a long-tailed subset of ImageNet's images, given by two list files."""

import random
from pathlib import Path, PurePosixPath
from typing import Annotated

from dkl.console import say
from dkl.data.images.image_files import ImageFiles
from dkl.data.shot_groups import shot_groups
from dkl.data.sources.imagenet import HOW_TO_GET_IMAGENET
from dkl.errors import UserError
from dkl.validation import CLASSES, SIDE

PUBLISHED = {"many": 385, "medium": 479, "few": 136}  # classes per shot group
SAMPLE = 1000  # files whose existence is checked

EXPECTED = "lines such as train/n01440764/x.JPEG 0"

HOW_TO_GET_LISTS = (
    "The published lists, ImageNet_LT_train.txt and ImageNet_LT_test.txt, are linked from "
    "https://github.com/zhmiao/OpenLongTailRecognition-OLTR. Put them there, or set DKL_DATA_DIR, or "
    "data.source.train_list and data.source.test_list"
)


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


def _read_list(path: Path, num_classes: int) -> dict[str, int]:
    """Labels by path, in the order of the list. Raises UserError on the first invalid line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"there is no list {path}: expected {EXPECTED}. {HOW_TO_GET_LISTS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of text lines: {error}; download it again") from None
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = _read_line(line.strip(), f"{path}, line {number}", num_classes)
        if name in found:
            raise UserError(f"{path}, line {number}: {name} is listed twice; remove one of the lines")
        found[name] = label
    if not found:
        raise UserError(f"{path} is empty: expected {EXPECTED}. {HOW_TO_GET_LISTS}")
    return found


def _check_files_exist(root: Path, names: list[str], path: Path) -> None:
    """Raise UserError if the first file, or one of a fixed random sample, is not under ``root``."""
    # A sample, because checking 166,000 files takes minutes on a network disk.
    checked = {names[0], *random.Random(0).sample(names, min(SAMPLE, len(names)))}
    if missing := sorted(name for name in checked if not (root / name).is_file()):
        raise UserError(
            f"{len(missing):,} of {len(checked):,} checked files of {path} are missing under {root}, such as "
            f"{root / missing[0]}. They are ImageNet's, in <split>/<wnid>/*.JPEG. {HOW_TO_GET_IMAGENET}"
        )


def _report_shots(train: ImageFiles, test: ImageFiles, num_classes: int, train_list: str) -> None:
    """Print how many classes have many, medium and few images, with a warning if that differs from the published list.

    Raises UserError if a class has no training images.
    """
    per_class = train.per_class(num_classes)
    if empty := (per_class == 0).nonzero().flatten().tolist():
        raise UserError(
            f"{train_list} has no image of {len(empty)} of {num_classes} classes, such as {empty[0]}; download the "
            "published lists"
        )
    counts = {name: int(mask.sum()) for name, mask in shot_groups(per_class).items()}
    classes = "/".join(map(str, counts.values()))
    say(f"ImageNet-LT: {len(train):,} + {len(test):,} images, classes with many/medium/few: {classes}")
    if counts != PUBLISHED:
        published = "/".join(map(str, PUBLISHED.values()))
        say(f"warning: the published list has {published} many/medium/few classes; {train_list} differs from it")


def imagenet_lt(
    root: str, train_list: str, test_list: str, num_classes: Annotated[int, CLASSES], size: Annotated[int, SIDE]
) -> tuple[ImageFiles, ImageFiles]:
    """Return the images under ``root`` that the lists name, one ``relative/path label`` per line.

    Prints how many classes have many, medium and few images. Raises UserError on an invalid line, an image listed
    twice, a class without training images, or missing files.
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
    _report_shots(train, test, num_classes, train_list)
    return train, test
