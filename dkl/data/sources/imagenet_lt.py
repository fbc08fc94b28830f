"""ImageNet-LT (Liu et al. 2019): ImageNet's images by list files, few of most classes; shots, as the field splits them.

A class has many training images (over 100), few (under 20), or a medium number.
"""

import random
from pathlib import Path, PurePosixPath

from torch import Tensor

from dkl.console import say
from dkl.data.images.files import Files
from dkl.data.sources.folders import HOW_TO_GET_IMAGENET, FileSplits
from dkl.errors import UserError

MANY, FEW = 100, 20
PUBLISHED = {"many": 385, "medium": 479, "few": 136}  # classes
SAMPLE = 1000  # paths whose files are looked for

EXPECTED = "lines such as train/n01440764/x.JPEG 0"

HOW_TO_GET_LISTS = (
    "The published lists, ImageNet_LT_train.txt and ImageNet_LT_test.txt, are linked from "
    "https://github.com/zhmiao/OpenLongTailRecognition-OLTR. Put them there, or set DKL_DATA_DIR or "
    "data.source.train_list and data.source.test_list to where they are"
)


def shots(per_class: Tensor) -> dict[str, Tensor]:
    """Which classes have many, medium and few of ``per_class[C]`` training images: a bool mask [C] each."""
    many, few = per_class > MANY, per_class < FEW
    return {"many": many, "medium": ~many & ~few, "few": few}


def _read_line(line: str, where: str, num_classes: int) -> tuple[str, int]:
    name, _, label = line.rpartition(" ")
    path = PurePosixPath(name)
    if not name or not label.isdecimal():
        raise UserError(f"{where}: expected a relative path, a space and a label, not {line!r}")
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {name} must be relative to data.source.root, such as train/n01440764/x.JPEG")
    if int(label) >= num_classes:
        raise UserError(
            f"{where}: label {label} is not below data.num_classes={num_classes}; number the labels from 0, or set "
            f"data.num_classes"
        )
    return name, int(label)


def _read_list(path: Path, num_classes: int) -> dict[str, int]:
    """Name -> label, in the order of the list. Raises UserError on the first line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"there is no list {path}: expected {EXPECTED}. {HOW_TO_GET_LISTS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of text lines: {error}; fetch it anew") from None
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = _read_line(line.strip(), f"{path}, line {number}", num_classes)
        if name in found:
            raise UserError(f"{path}, line {number}: {name} is there twice; take one out")
        found[name] = label
    if not found:
        raise UserError(f"{path} is empty: expected {EXPECTED}. {HOW_TO_GET_LISTS}")
    return found


def _look_for(root: Path, names: list[str], path: Path) -> None:
    """Raise UserError where the first file, or one of a fixed random sample, is not under ``root``."""
    looked = {names[0], *random.Random(0).sample(names, min(SAMPLE, len(names)))}
    if missing := sorted(name for name in looked if not (root / name).is_file()):
        raise UserError(
            f"of {len(looked):,} files of {path} looked for under {root}, {len(missing):,} are missing, such as "
            f"{root / missing[0]}. They are ImageNet's, in <split>/<wnid>/*.JPEG. {HOW_TO_GET_IMAGENET}"
        )


def imagenet_lt(root: str, train_list: str, test_list: str, num_classes: int, size: int) -> FileSplits:
    """Images under ``root`` that the lists name, ``relative/path label`` a line; both are checked and counted.

    Raises UserError on a line that is wrong, an image named twice, a class without training images, or files that are
    not there. Says how many classes have many, medium and few images, and where that is not as published.
    """
    paths = [Path(train_list), Path(test_list)]
    train, test = (_read_list(path, num_classes) for path in paths)
    if both := train.keys() & test.keys():
        raise UserError(f"{test_list} tests on {len(both):,} images that {train_list} trains on, such as {min(both)}")
    for names, path in zip((train, test), paths, strict=True):
        _look_for(Path(root), list(names), path)
    splits = tuple(Files.of(root, list(split), list(split.values()), size=size) for split in (train, test))
    training, testing = splits
    per_class = training.per_class(num_classes)
    if empty := (per_class == 0).nonzero().flatten().tolist():
        raise UserError(f"{train_list} has no image of {len(empty)} of {num_classes} classes, such as {empty[0]}")
    counts = {name: int(mask.sum()) for name, mask in shots(per_class).items()}
    classes = "/".join(map(str, counts.values()))
    say(f"ImageNet-LT: {len(train):,} + {len(test):,} images, classes with many/medium/few: {classes}")
    if counts != PUBLISHED:
        published = "/".join(map(str, PUBLISHED.values()))
        say(f"warning: many/medium/few are {published} classes in the published list; is {train_list} another?")
    return training, testing
