"""Image files are told apart by name, label and size; validation sees the middle, as Pillow cuts it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dkl.data import ImageFiles
from dkl.errors import UserError
from tests.data.pictures import make_files, middle, picture


def test_files_know_their_shape_labels_and_paths(tmp_path: Path) -> None:
    files = make_files(tmp_path, 2, size=24)
    assert (len(files), files.shape) == (6, (3, 24, 24))
    assert files.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert files.per_class(4).tolist() == [2, 2, 2, 0]
    assert files.path(3) == tmp_path / "n02" / "001.JPEG"


def test_names_of_any_letters_survive(tmp_path: Path) -> None:
    names = ["a/ß 1.JPEG", "b/äé漢.jpg", "b/a longer name.jpeg"]
    files = ImageFiles.from_names(tmp_path, names, [0, 1, 1], size=8)
    assert [files.path(index) for index in range(3)] == [tmp_path / name for name in names]


def test_subsets_take_names_and_labels_along(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3)
    subset = files.balanced(4)
    assert [str(subset.path(i).relative_to(tmp_path)) for i in range(4)] == [
        "n01/000.JPEG",
        "n01/001.JPEG",
        "n02/000.JPEG",
        "n03/000.JPEG",
    ]
    assert subset.labels.tolist() == [0, 0, 1, 2]
    rest, held = files.holdout(4)
    assert held.sha256 == subset.sha256
    assert sorted([*rest.names.tolist(), *held.names.tolist()]) == files.names.tolist()
    assert files.balanced(None) is files


def test_the_hash_is_of_names_labels_sizes_and_shape_wherever_they_lie(tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    assert make_files(tmp_path / "elsewhere").sha256 == files.sha256
    names, labels = [os.fsdecode(name) for name in files.names], files.labels.tolist()
    others = [
        make_files(tmp_path / "a", size=33),
        files.balanced(11),
        ImageFiles.from_names(tmp_path / "a", names, [*labels[:-1], 0], size=32),
        ImageFiles.from_names(tmp_path / "a", [*names[1:], names[0]], labels, size=32),
    ]
    cut = make_files(tmp_path / "cut")
    cut.path(5).write_bytes(cut.path(5).read_bytes()[:-1])
    others.append(cut)
    assert len({images.sha256 for images in [files, *others]}) == 6


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    files.path(7).unlink()
    with pytest.raises(UserError, match=r"n02.003\.JPEG.*No such file"):
        _ = files.sha256
    with pytest.raises(UserError, match=r"n02.003\.JPEG cannot be read as an image: .*No such file"):
        files.tensor()


def test_no_files_and_labels_too_few_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        ImageFiles.from_names(tmp_path, [], [], size=8)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        ImageFiles.from_names(tmp_path, ["a.png", "b.png"], [0], size=8)


@pytest.mark.parametrize("size", [16, 32, 56])
def test_validation_sees_the_middle_at_seven_eighths(tmp_path: Path, size: int) -> None:
    files = make_files(tmp_path, size=size)
    images = files.tensor()
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    expected = [middle(files.path(index), size).transpose(2, 0, 1) for index in range(len(files))]
    assert np.array_equal(images.numpy(), np.stack(expected))


def test_224_is_the_middle_of_256(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)).save(path)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    seen = ImageFiles.from_names(tmp_path, ["a.png"], [0], size=224).tensor()[0]
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), pixels[16:240, 16:240])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_files_become_rgb(tmp_path: Path, mode: str) -> None:
    picture(tmp_path / "x.JPEG", 2, mode)
    with Image.open(tmp_path / "x.JPEG") as image:
        assert image.mode == mode
    seen = ImageFiles.from_names(tmp_path, ["x.JPEG"], [0], size=28).tensor()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, middle(tmp_path / "x.JPEG", 28))
    assert (mode == "L") == np.array_equal(seen[..., 0], seen[..., 1])
