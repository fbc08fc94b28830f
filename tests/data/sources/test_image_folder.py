"""Folders of images arrive pixel by pixel, with labels by sorted class name; broken ones are named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dkl.data import ImageFiles, Images, image_files, image_folder
from dkl.errors import UserError


def write_folder(folder: Path, names: list[str], size: tuple[int, int] = (4, 5), suffix: str = "png") -> Path:
    """Write two images per class of ``names``, of height and width ``size``; their pixel value tells the class."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(2):
            pixels = np.full((*size, 3), 10 * number + image, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.{suffix}")
    return folder


def read_folders(train: Path, test: Path) -> tuple[Images, Images]:
    return image_folder(str(train), str(test))


def test_labels_follow_sorted_class_names(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "train", ["zebra", "ape", "10", "9"])
    test = write_folder(tmp_path / "test", ["9", "zebra", "10", "ape"])
    (tmp_path / "train" / "notes.txt").write_text("not a class")
    (tmp_path / "train" / "ape" / "notes.txt").write_text("not an image")
    images, testing = read_folders(train, test)
    assert images.images.shape == (8, 3, 4, 5)
    # sorted: '10' < '9' < 'ape' < 'zebra'; pixel values: zebra 0, ape 10, '10' 20, '9' 30
    assert images.images[:, 0, 0, 0].tolist() == [20, 21, 30, 31, 10, 11, 0, 1]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert testing.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert testing.images[:, 0, 0, 0].tolist() == [20, 21, 0, 1, 30, 31, 10, 11]


@pytest.mark.parametrize("suffix", ["PNG", "jpg", "jpeg", "webp", "bmp"])
def test_every_suffix_that_is_read_can_be_decoded(tmp_path: Path, suffix: str) -> None:
    train = write_folder(tmp_path / "train", ["a", "b"], suffix=suffix)
    images, _ = read_folders(train, train)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.images[:, 0, 0, 0].int() == pytest.approx([0, 1, 10, 11], abs=2)  # jpeg and webp lose a little


def test_gray_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    Image.new("L", (4, 4), 77).save(folder / "0.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(folder / "1.png")
    images, _ = read_folders(tmp_path / "train", tmp_path / "train")
    assert images.images[:, :, 0, 0].tolist() == [[77, 77, 77], [1, 2, 3]]


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "train", ["a", "b"])
    Image.new("RGB", (9, 9)).save(train / "b" / "odd.png")
    with pytest.raises(UserError, match=r"odd\.png.*resize"):
        read_folders(train, train)


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "train", ["a"])
    (train / "a" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(UserError, match=r"broken\.png"):
        read_folders(train, train)


def list_folders(train: Path, test: Path) -> tuple[ImageFiles, ImageFiles]:
    return image_files(str(train), str(test), 1, 8)


@pytest.mark.parametrize("read", [read_folders, list_folders])
def test_empty_and_missing_folders_and_classes_are_named(tmp_path: Path, read: Callable[..., object]) -> None:
    train, more = write_folder(tmp_path / "train", ["a"]), write_folder(tmp_path / "more", ["stranger"])
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    for bad, why in (("empty", r"a holds no images; expected \.png"), ("absent", r"expected .*<class>/\*\.")):
        for folders in ((tmp_path / bad, train), (train, tmp_path / bad)):
            with pytest.raises(UserError, match=rf"{bad}.*{why}"):
                read(*folders)
    for folders in ((train, more), (more, train)):
        with pytest.raises(UserError, match="only one of them has a, stranger"):
            read(*folders)
    with pytest.raises(UserError, match=r"bare has (no|0) class folders"):
        read(tmp_path / "bare", tmp_path / "bare")
