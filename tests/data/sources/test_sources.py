"""Digits are split as documented; files and folders of images arrive pixel by pixel, and broken ones are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dkl.data import Images, digits, image_folder, npz
from dkl.errors import UserError
from tests.data.common import assert_holds, make_arrays


def test_digits_are_split_every_fifth_of_a_class_and_no_image_twice() -> None:
    content = load_digits()
    places: dict[bool, list[int]] = {False: [], True: []}
    seen = dict.fromkeys(range(10), 0)
    for place, label in enumerate(content.target.tolist()):
        seen[label] += 1
        places[seen[label] % 5 == 0].append(place)
    train, test = digits()
    assert (len(train), len(test)) == (1442, 355)
    for images, chosen in ((train, places[False]), (test, places[True])):
        grey = [[[round(level * 255 / 16) for level in row] for row in content.images[place]] for place in chosen]
        assert images.images.squeeze(1).tolist() == grey
        assert images.labels.tolist() == content.target[chosen].tolist()


def test_digits_have_their_shape_and_range_and_are_stratified() -> None:
    for images in digits():
        assert images.images.shape[1:] == (1, 8, 8)
        assert (images.images.min(), images.images.max()) == (0, 255)
        share = images.labels.bincount().float() / len(images)
        assert share.shape == (10,)
        assert share.min() > 0.09
        assert share.max() < 0.11


def test_digits_are_the_same_every_time() -> None:
    assert [images.sha256 for images in digits()] == [images.sha256 for images in digits()]


def write_pair(folder: Path, **train: object) -> tuple[str, str]:
    """A valid ``test.npz``, and a ``train.npz`` of the arrays given."""
    pixels, labels = make_arrays(4, 5)
    np.savez(folder / "test.npz", image=pixels, label=labels)
    np.savez(folder / "train.npz", **train)
    return str(folder / "train.npz"), str(folder / "test.npz")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_npz_files_arrive_pixel_by_pixel(tmp_path: Path, dtype: type) -> None:
    pixels, labels = make_arrays(6, 6, size=5)
    train, test = npz(*write_pair(tmp_path, image=pixels, label=labels.astype(dtype)))
    assert_holds(train, (pixels, labels))
    assert_holds(test, make_arrays(4, 5))


def test_grey_npz_files(tmp_path: Path) -> None:
    pixels, labels = make_arrays(6, 6)
    train, _ = npz(*write_pair(tmp_path, image=pixels[..., :1], label=labels))
    assert_holds(train, (pixels[..., :1], labels))


PIXELS, LABELS = make_arrays(6, 6)
BAD_ARRAYS = {
    "no label": ({"image": PIXELS, "labels": LABELS}, "label"),
    "no image": ({"x": PIXELS, "label": LABELS}, "image"),
    "float images": ({"image": PIXELS / 255, "label": LABELS}, "uint8"),
    "planes first": ({"image": PIXELS.transpose(0, 3, 1, 2), "label": LABELS}, "N, H, W"),
    "three axes": ({"image": PIXELS[..., 0], "label": LABELS}, "N, H, W"),
    "too few labels": ({"image": PIXELS, "label": LABELS[:-1]}, "6 integers"),
    "one-hot labels": ({"image": PIXELS, "label": np.eye(10, dtype=np.int64)[LABELS]}, "6 integers"),
    "float labels": ({"image": PIXELS, "label": LABELS.astype(float)}, "integers"),
    "object images": ({"image": np.array([{"run": "code"}], dtype=object), "label": LABELS}, "plain arrays"),
    "object labels": ({"image": PIXELS, "label": LABELS.astype(object)}, "plain arrays"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_npz_is_named_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    arrays, wrong = BAD_ARRAYS[case]
    paths = write_pair(tmp_path, **arrays)
    with pytest.raises(UserError, match=wrong) as caught:
        npz(*paths)
    assert paths[0] in str(caught.value)


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    train, test = write_pair(tmp_path, image=PIXELS, label=LABELS)
    with pytest.raises(UserError, match=r"absent\.npz"):
        npz(train, str(tmp_path / "absent.npz"))
    with pytest.raises(UserError, match=r"absent\.npz"):
        npz(str(tmp_path / "absent.npz"), test)


@pytest.mark.parametrize("case", ["empty", "text", "truncated", "one array"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, case: str) -> None:
    train, test = write_pair(tmp_path, image=PIXELS, label=LABELS)
    path = Path(train)
    if case == "one array":
        with path.open("wb") as file:
            np.save(file, PIXELS)
    else:
        contents = {"empty": b"", "text": b"<html>404</html>", "truncated": path.read_bytes()[:2000]}
        path.write_bytes(contents[case])
    with pytest.raises(UserError, match=r"train\.npz"):
        npz(train, test)


def write_folder(folder: Path, names: list[str], size: tuple[int, int] = (4, 5), suffix: str = "png") -> Path:
    """Two images for each class of ``names``, of height and width ``size``; their first pixel names the class."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(2):
            pixels = np.full((*size, 3), 10 * number + image, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.{suffix}")
    return folder


def read_folders(train: Path, test: Path) -> tuple[Images, Images]:
    return image_folder(str(train), str(test))


def test_folders_are_labelled_by_sorted_class_name(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "train", ["zebra", "ape", "10", "9"])
    test = write_folder(tmp_path / "test", ["zebra", "9"])
    (tmp_path / "train" / "notes.txt").write_text("not a class")
    (tmp_path / "train" / "ape" / "notes.txt").write_text("not an image")
    images, testing = read_folders(train, test)
    assert images.images.shape == (8, 3, 4, 5)
    # '10' < '9' < 'ape' < 'zebra'; written in the order zebra 0, ape 10, '10' 20, '9' 30
    assert images.images[:, 0, 0, 0].tolist() == [20, 21, 30, 31, 10, 11, 0, 1]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert testing.labels.tolist() == [1, 1, 3, 3]
    assert testing.images[:, 0, 0, 0].tolist() == [10, 11, 0, 1]


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg", "webp", "bmp"])
def test_every_suffix_that_is_read_can_be_decoded(tmp_path: Path, suffix: str) -> None:
    train = write_folder(tmp_path / "train", ["a", "b"], suffix=suffix)
    images, _ = read_folders(train, train)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.images[:, 0, 0, 0].int() == pytest.approx([0, 1, 10, 11], abs=2)  # jpeg and webp lose a little


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
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


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "train", ["a"])
    (tmp_path / "empty" / "a").mkdir(parents=True)
    for bad in ("empty", "absent"):
        for folders in ((tmp_path / bad, train), (train, tmp_path / bad)):
            with pytest.raises(UserError, match=rf"{bad}.*expected .*<class>/\*\.png"):
                read_folders(*folders)


def test_a_class_that_only_the_test_images_have_is_refused(tmp_path: Path) -> None:
    train, test = write_folder(tmp_path / "train", ["a"]), write_folder(tmp_path / "test", ["a", "stranger"])
    with pytest.raises(UserError, match="stranger"):
        read_folders(train, test)
