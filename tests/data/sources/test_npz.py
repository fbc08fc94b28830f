"""``.npz`` files arrive pixel by pixel; broken ones are named, read whole or mapped."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dkl.data import SyntheticImages, npz
from dkl.errors import UserError
from tests.data.common import assert_holds, make_arrays


def write_pair(folder: Path, **train: object) -> tuple[str, str]:
    """Write a valid ``test.npz``, and a ``train.npz`` with the given arrays."""
    pixels, labels = make_arrays(4, 5)
    np.savez(folder / "test.npz", image=pixels, label=labels)
    np.savez(folder / "train.npz", **train)
    return str(folder / "train.npz"), str(folder / "test.npz")


@pytest.mark.parametrize(("dtype", "channels"), [(np.int64, 3), (np.int32, 3), (np.uint8, 3), (np.int64, 1)])
def test_images_arrive_pixel_by_pixel(tmp_path: Path, dtype: type, channels: int) -> None:
    pixels, labels = make_arrays(6, 6, size=5)
    train, test = npz(*write_pair(tmp_path, image=pixels[..., :channels], label=labels.astype(dtype)))
    assert_holds(train, (pixels[..., :channels], labels))
    assert_holds(test, make_arrays(4, 5))


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    train, test = write_pair(tmp_path, image=PIXELS, label=LABELS)
    for paths in ((train, str(tmp_path / "absent.npz")), (str(tmp_path / "absent.npz"), test)):
        with pytest.raises(UserError, match=r"absent\.npz"):
            npz(*paths)


def read_whole(path: Path) -> object:
    return npz(str(path), str(path))


def map_file(path: Path) -> object:
    return SyntheticImages([path], shape=(3, 32, 32), num_classes=10)


PIXELS, LABELS = make_arrays(6, 6)
BAD_ARRAYS = {
    "no label": ({"image": PIXELS, "labels": LABELS}, "no array named label"),
    "nothing": ({"x": PIXELS}, "no array named image and label"),
    "float images": ({"image": PIXELS / 255, "label": LABELS}, r"uint8 \(N, .*float64"),
    "planes first": ({"image": PIXELS.transpose(0, 3, 1, 2).copy(), "label": LABELS}, r"\(N, .*\(6, 3, 32, 32\)"),
    "three axes": ({"image": PIXELS[..., 0].copy(), "label": LABELS}, r"\(N, .*\(6, 32, 32\)"),
    "too few labels": ({"image": PIXELS, "label": LABELS[:-1]}, "6 integers"),
    "one-hot labels": ({"image": PIXELS, "label": np.eye(10, dtype=np.int64)[LABELS]}, "6 integers"),
    "float labels": ({"image": PIXELS, "label": LABELS.astype(float)}, "6 integers.*float64"),
    "object images": ({"image": np.array([{"run": "code"}], dtype=object), "label": LABELS}, "plain arrays"),
    "object labels": ({"image": PIXELS, "label": LABELS.astype(object)}, "plain arrays"),
}
BAD_MAPPED_ARRAYS = {
    "other size": ({"image": PIXELS[:, :8, :8].copy(), "label": LABELS}, r"data\.shape=\[3, 32, 32\].*8, 8, 3"),
    "no images": ({"image": PIXELS[:0], "label": LABELS[:0]}, "integers, at least one"),
    "high label": ({"image": PIXELS, "label": np.array([0, 1, 10, 3, 4, 5])}, r"from 0 to 10.*data\.num_classes=10"),
    "low label": ({"image": PIXELS, "label": np.array([0, -1, 1, 3, 4, 5])}, "from -1 to 5"),
    "columns first": ({"image": np.asfortranarray(PIXELS), "label": LABELS}, "column-major"),
}
CASES = [(read, case) for read in (read_whole, map_file) for case in BAD_ARRAYS]


@pytest.mark.parametrize(("read", "case"), [*CASES, *((map_file, case) for case in BAD_MAPPED_ARRAYS)])
def test_a_bad_npz_is_named_with_what_is_wrong(tmp_path: Path, read: Callable[[Path], object], case: str) -> None:
    arrays, wrong = (BAD_ARRAYS | BAD_MAPPED_ARRAYS)[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=wrong) as caught:
        read(tmp_path / "bad.npz")
    assert str(tmp_path / "bad.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_whole, map_file])
@pytest.mark.parametrize("case", ["empty", "text", "truncated", "one array", "folder"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, case: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, image=PIXELS, label=LABELS)
    if case == "one array":
        with path.open("wb") as file:
            np.save(file, PIXELS)
    elif case == "folder":
        path = tmp_path
    else:
        path.write_bytes({"empty": b"", "text": b"<html>404</html>", "truncated": path.read_bytes()[:2000]}[case])
    with pytest.raises(UserError, match=re.escape(str(path))):
        read(path)
