"""``.npz`` files arrive pixel by pixel; broken ones are named."""

from pathlib import Path

import numpy as np
import pytest

from dkl.data import npz
from dkl.errors import UserError
from tests.data.common import assert_holds, make_arrays


def write_pair(folder: Path, **train: object) -> tuple[str, str]:
    """Write a valid ``test.npz``, and a ``train.npz`` with the given arrays."""
    pixels, labels = make_arrays(4, 5)
    np.savez(folder / "test.npz", image=pixels, label=labels)
    np.savez(folder / "train.npz", **train)
    return str(folder / "train.npz"), str(folder / "test.npz")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_images_arrive_pixel_by_pixel(tmp_path: Path, dtype: type) -> None:
    pixels, labels = make_arrays(6, 6, size=5)
    train, test = npz(*write_pair(tmp_path, image=pixels, label=labels.astype(dtype)))
    assert_holds(train, (pixels, labels))
    assert_holds(test, make_arrays(4, 5))


def test_gray_images(tmp_path: Path) -> None:
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
