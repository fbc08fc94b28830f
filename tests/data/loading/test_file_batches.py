"""Batches of files hold the pixels that Pillow gives, for any workers, processes and place of resuming."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import RandomResizedCrop

from dkl.data import Augment, Batching, Center, FileBatches
from dkl.errors import UserError
from tests.data.image_files import center, make_files


def generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def cropped(path: Path, seed: int, size: int, flip: bool) -> NDArray[np.uint8]:
    """The crop of a file for ``seed``: a box drawn by torchvision, cropped and resized by Pillow."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    torch.manual_seed(seed)
    top, left, height, width = RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    if flip and torch.rand(1).item() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


@pytest.mark.parametrize("flip", [True, False])
def test_training_batches_are_random_crops_in_shuffled_order(tmp_path: Path, flip: bool) -> None:
    files = make_files(tmp_path, size=24)
    batches = FileBatches(files, Batching(5, augment=Augment(flip=flip), shuffle=True, seed=7))
    got = list(batches.epoch(3))
    assert len(batches) == len(got) == 3
    order = torch.randperm(12, generator=generator(7, 3)).tolist()
    seeds = torch.randint(2**32, (12,), generator=generator(7, 3, 1)).tolist()
    pixels = np.concatenate([(batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy() for batch in got])
    for place, index in enumerate(order):
        assert np.array_equal(pixels[place], cropped(files.path(index), seeds[index], 24, flip))
    assert torch.cat([batch.labels for batch in got]).tolist() == [files.labels[index].item() for index in order]
    assert [index for batch in got for index in batch.indices.tolist()] == order
    assert [(batch.first, batch.total, batch.views) for batch in got] == [(0, 5, 1), (0, 5, 1), (0, 2, 1)]


def test_random_interpolation_is_bilinear_or_bicubic_per_image(tmp_path: Path) -> None:
    """Each resized crop is one of Pillow's two, of the box that timm draws; both occur."""
    files = make_files(tmp_path, size=24)
    batches = FileBatches(files, Batching(12, augment=Augment(interpolation="random"), shuffle=True, seed=7))
    (batch,) = batches.epoch(3)
    seeds = torch.randint(2**32, (12,), generator=generator(7, 3, 1)).tolist()
    kinds = []
    for index, pixels in zip(batch.indices.tolist(), (batch.images * 255).round().byte(), strict=True):
        with Image.open(files.path(index)) as opened:
            image = opened.convert("RGB")
        random.seed(seeds[index])
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        box = image.crop((left, top, left + width, top + height))
        both = [np.asarray(box.resize((24, 24), by)) for by in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)]
        kinds += [number for number, one in enumerate(both) if np.array_equal(one, pixels.permute(1, 2, 0).numpy())]
    assert len(kinds) == 12
    assert set(kinds) == {0, 1}


@pytest.mark.parametrize(
    ("crop", "by"),
    [(Center(), Image.Resampling.BILINEAR), (Center(0.95, "bicubic"), Image.Resampling.BICUBIC)],
    ids=["usual", "strong recipe"],
)
def test_validation_batches_are_center_crops_in_order(tmp_path: Path, crop: Center, by: Image.Resampling) -> None:
    files = replace(make_files(tmp_path, 3), center=crop)
    got = list(FileBatches(files, Batching(4)).epoch())
    expected = np.stack([center(files.path(index), 32, crop.share, by) for index in range(9)]).transpose(0, 3, 1, 2)
    assert torch.equal(torch.cat([batch.images for batch in got]), torch.from_numpy(expected).float() / 255)
    assert torch.cat([batch.labels for batch in got]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(torch.cat([batch.images for batch in got]), files.tensor().float() / 255)


def test_a_process_reads_only_its_own_files(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3)
    for index in (2, 3, 7, 8):  # read by the second process
        files.path(index).write_bytes(b"no image")
    batches = list(FileBatches(files, Batching(4, drop_last=True, rank=0, world=2)).epoch())
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match=r"n01.002\.JPEG"):
        list(FileBatches(files, Batching(4, drop_last=True, rank=1, world=2)).epoch())


@pytest.mark.parametrize(
    ("damage", "workers"), [("cut", 0), ("cut", 1), ("text", 0), ("empty", 0), ("missing", 0), ("folder", 0)]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: str, workers: int) -> None:
    files = make_files(tmp_path)
    path = files.path(6)
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"<html>", "empty": b""}[damage])
    batches = FileBatches(files, Batching(4, workers=workers)).epoch()
    next(iter(batches))
    with pytest.raises(UserError, match=r"^\S+n02.002\.JPEG cannot be read as an image: [^\n]*download[^\n]*$"):
        next(iter(batches))


@pytest.mark.parametrize(
    "augment", [{"crop_padding": 4}, {"rotation": 15.0}, {"cutout": 8}, {"second_view": "autoaugment"}]
)
def test_another_augmentation_is_refused(tmp_path: Path, augment: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(augment))):
        FileBatches(make_files(tmp_path), Batching(4, augment=Augment(flip=True, **augment)))
