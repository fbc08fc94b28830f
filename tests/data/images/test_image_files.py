"""The hash of image files covers name, label and size; validation sees the center crop, as Pillow makes it."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dkl.data import ImageFiles, SegmentationArrays, SegmentationFiles
from dkl.data.pixels import PixelLabels
from dkl.errors import UserError
from tests.data.image_files import SIZES, center, make_files, write_image


def test_shape_labels_and_paths(tmp_path: Path) -> None:
    files = make_files(tmp_path, 2, size=24)
    assert (len(files), files.shape) == (6, (3, 24, 24))
    assert files.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert files.per_class(4).tolist() == [2, 2, 2, 0]
    assert files.path(3) == tmp_path / "n02" / "001.JPEG"


def test_names_may_have_any_characters(tmp_path: Path) -> None:
    names = ["a/ß 1.JPEG", "b/äé漢.jpg", "b/a longer name.jpeg"]
    files = ImageFiles.from_names(tmp_path, names, [0, 1, 1], size=8)
    assert [files.path(index) for index in range(3)] == [tmp_path / name for name in names]


def test_subsets_keep_names_and_labels_together(tmp_path: Path) -> None:
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


def test_files_of_another_set_are_found_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, test = make_files(tmp_path / "train"), make_files(tmp_path / "test", 2)
    for index in range(len(test)):  # the first is a copy under another name, the second has its length only
        test.path(index).write_bytes(training.path(5).read_bytes() + b"\0" * (index > 0))
    training.path(7).write_bytes(training.path(5).read_bytes() + b"\1")
    assert test.count_in(training) == (1, 6)
    assert training.count_in(test) == (1, 12)
    monkeypatch.setattr(ImageFiles, "most_compared", 4)
    assert training.count_in(training) == (4, 4)
    training.path(7).unlink()
    with pytest.raises(UserError, match=r"n02/003\.JPEG cannot be read"):
        test.count_in(training)


def test_images_with_masks_are_found_by_their_files(tmp_path: Path) -> None:
    names = [(f"{number}.jpg", f"{number}.png") for number in range(4)]
    for number, (name, mask) in enumerate(names):
        write_image(tmp_path / name, 4 * (number % 3))  # the first and the last are equal, all have one size
        Image.new("L", SIZES[0]).save(tmp_path / mask)
    pixels = PixelLabels(num_classes=2, ignore_index=255)
    folder = partial(SegmentationFiles.from_folders, tmp_path, tmp_path, pixels=pixels, size=(8, 8))
    assert folder(names[2:]).count_in(folder(names[:2])) == (1, 2)
    pairs = [folder(names).pair(index) for index in range(4)]
    images, masks = (torch.stack([getattr(pair, kind) for pair in pairs]) for kind in ("image", "mask"))
    known, asked = (
        SegmentationArrays(images=images[part], masks=masks[part], pixels=pixels, size=(8, 8))
        for part in (slice(2), slice(2, 4))
    )
    assert asked.count_in(known) == (1, 2)


def test_the_hash_covers_names_labels_sizes_and_shape_but_not_the_folder(tmp_path: Path) -> None:
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    files.path(7).unlink()
    with pytest.raises(UserError, match=r"n02.003\.JPEG.*No such file"):
        _ = files.sha256
    with pytest.raises(UserError, match=r"n02.003\.JPEG cannot be read as an image: .*No such file"):
        files.tensor()


def test_no_files_or_too_few_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        ImageFiles.from_names(tmp_path, [], [], size=8)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        ImageFiles.from_names(tmp_path, ["a.png", "b.png"], [0], size=8)


@pytest.mark.parametrize("size", [16, 56])
def test_validation_sees_the_center_crop(tmp_path: Path, size: int) -> None:
    files = make_files(tmp_path, size=size)
    images = files.tensor()
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    expected = [center(files.path(index), size).transpose(2, 0, 1) for index in range(len(files))]
    assert np.array_equal(images.numpy(), np.stack(expected))


def test_size_224_is_the_center_of_256(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)).save(path)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    seen = ImageFiles.from_names(tmp_path, ["a.png"], [0], size=224).tensor()[0]
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), pixels[16:240, 16:240])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_files_become_rgb(tmp_path: Path, mode: str) -> None:
    write_image(tmp_path / "x.JPEG", 2, mode)
    with Image.open(tmp_path / "x.JPEG") as image:
        assert image.mode == mode
    seen = ImageFiles.from_names(tmp_path, ["x.JPEG"], [0], size=28).tensor()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, center(tmp_path / "x.JPEG", 28))
    assert (mode == "L") == np.array_equal(seen[..., 0], seen[..., 1])
