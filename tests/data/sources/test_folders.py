"""Folders of image files are listed by class and name; errors say what is missing and how to get it."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dkl.assembly import load_data, make_batches
from dkl.config import TrainConfig, compose_config, typed
from dkl.data import ImageFiles, imagenet
from dkl.errors import UserError
from tests.data.image_files import CLASSES, write_folder, write_image


def make_splits(root: Path, val: str = "val") -> None:
    write_folder(root / "train", 3)
    write_folder(root / val, 2, first=100)


def zip_folder(path: Path, folder: Path, compression: int = zipfile.ZIP_STORED) -> None:
    """Pack the files under ``folder`` as people do: with its name, entries for folders, and leftovers of a system."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for place in sorted(folder.rglob("*"), reverse=True):
            archive.write(place, Path(folder.name) / place.relative_to(folder))
        archive.writestr(f"__MACOSX/{folder.name}/n01/._000.JPEG", b"left by another system")


def names(files: ImageFiles) -> list[str]:
    return [os.fsdecode(name) for name in files.names]


def test_imagenet_is_listed_by_class_and_name(tmp_path: Path) -> None:
    make_splits(tmp_path)
    (tmp_path / "train" / "n01" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "LICENSE").write_text("no class")
    (tmp_path / "train" / "n01" / "._000.JPEG").write_bytes(b"left by another system")
    write_image(tmp_path / "train" / "n01" / "0000.jpg", 1)
    training, testing = imagenet(str(tmp_path), 3, 16)
    assert names(training)[:4] == ["n01/000.JPEG", "n01/0000.jpg", "n01/001.JPEG", "n01/002.JPEG"]
    assert names(training)[4:] == [f"{name}/{number:03}.JPEG" for name in CLASSES[1:] for number in range(3)]
    assert names(testing) == [f"{name}/{number:03}.JPEG" for name in CLASSES for number in range(2)]
    assert training.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert testing.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert training.path(0) == tmp_path / "train/n01/000.JPEG"
    assert training.shape == testing.shape == (3, 16, 16)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_the_validation_images_equals_their_folder(tmp_path: Path, compression: int) -> None:
    make_splits(tmp_path, val="unpacked")
    expected = imagenet(str(tmp_path), 3, 16, val="unpacked")
    zip_folder(tmp_path / "val.zip", tmp_path / "unpacked", compression)
    training, testing = imagenet(str(tmp_path), 3, 16)
    alone, _ = imagenet(str(tmp_path), 3, 16, train=None)
    assert training.sha256 == expected[0].sha256
    assert testing.sha256 == alone.sha256 == expected[1].sha256
    assert torch.equal(testing.tensor(), expected[1].tensor())
    assert testing.count_in(expected[1]) == (6, 6)
    rest, held = testing.holdout(2)
    assert torch.equal(torch.cat([rest.tensor(), held.tensor()]).sum(0), testing.tensor().sum(0))


def test_zips_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    make_splits(tmp_path, val="unpacked")
    path = tmp_path / "val.zip"
    zip_folder(path, tmp_path / "unpacked", zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match=r"JPEG in .*val\.zip is encrypted or neither stored nor deflated"):
        imagenet(str(tmp_path), 3, 16)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/n01/000.JPEG", "b/n01/000.JPEG"):
            archive.writestr(name, b"")
    with pytest.raises(UserError, match=r"holds a/n01/000\.JPEG and b/n01/000\.JPEG: zip one folder of classes"):
        imagenet(str(tmp_path), 3, 16)
    zip_folder(path, tmp_path / "unpacked" / "n01")
    with pytest.raises(UserError, match=r"val\.zip has no class folders.*development kit"):
        imagenet(str(tmp_path), 3, 16)
    zip_folder(path, tmp_path / "unpacked", zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("unpacked/n02/000.JPEG").header_offset
    content[start + 60 : start + 90] = b"\xff" * 30
    path.write_bytes(content)
    _, testing = imagenet(str(tmp_path), 3, 16)
    with pytest.raises(UserError, match=r"n02/000\.JPEG in .*val\.zip cannot be read as an image: .* download"):
        testing.tensor()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"val\.zip is neither a folder nor a zip .*: download it again"):
        imagenet(str(tmp_path), 3, 16)


def test_a_missing_imagenet_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train and no .*val.*1,281,167.*image-net\.org.*DKL_DATA_DIR"):
        imagenet(str(tmp_path), 1000, 224)
    write_folder(tmp_path / "train", 1)
    with pytest.raises(UserError, match=r"there is no \S+val\. "):
        imagenet(str(tmp_path), 3, 224)


def test_validation_images_without_folders_are_explained(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 1)
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(UserError, match=r"val has no class folders.*development kit"):
        imagenet(str(tmp_path), 3, 224)


def configuration(tmp_path: Path, *more: str) -> DictConfig:
    overrides = ["data=imagefiles", "data.num_classes=3", "data.shape=[3,16,16]", "task=classification", "loss=none"]
    overrides += ["attack=none", "trainer.batch_size=4", "evaluation.batch_size=4", "trainer.threads=1"]
    paths = [f"paths.data={tmp_path}", f"paths.results={tmp_path}/results"]
    return compose_config("train", [*overrides, *paths, *more])


def test_a_configuration_gives_files_and_their_batches(tmp_path: Path) -> None:
    make_splits(tmp_path, "test")
    cfg = configuration(tmp_path, "data.train_size=6", "trainer.precision=float64")
    training, testing = load_data(cfg.data)
    assert training.per_class(3).tolist() == [2, 2, 2]
    batch = next(iter(make_batches(typed(cfg, TrainConfig), training, torch.device("cpu"), training=True).epoch(1)))
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, 16, 16), torch.float64)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    whole = [
        batch.labels
        for batch in make_batches(typed(cfg, TrainConfig), testing, torch.device("cpu"), training=False).epoch()
    ]
    assert torch.cat(whole).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.shape=[3,16,24]", r"training images are \[3, 16, 16\].*set data\.shape=\[3, 16, 16\]"),
        ("data.num_classes=4", r"3 class folders, but data\.num_classes=4"),
        ("data.synthetic.files=[a.npz]", r"data\.synthetic\.files need training images in memory"),
    ],
)
def test_a_configuration_that_does_not_fit_the_files_is_refused(tmp_path: Path, override: str, message: str) -> None:
    make_splits(tmp_path, "test")
    with pytest.raises(UserError, match=message):
        load_data(configuration(tmp_path, override).data)


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_that_are_no_images_are_refused_before_training(tmp_path: Path, split: str) -> None:
    make_splits(tmp_path, "test")
    min((tmp_path / split / "n01").iterdir()).write_text("<html>")
    with pytest.raises(UserError, match=rf"{split}/n01/\S+ cannot be read as an image"):
        load_data(configuration(tmp_path).data)


@pytest.mark.parametrize("data", ["imagenet", "imagenet_lt", "imagefiles"])
def test_the_crop_size_of_each_choice_follows_the_shape(data: str) -> None:
    given = ["data.num_classes=1000"] if data == "imagefiles" else []
    cfg = compose_config("train", [f"data={data}", *given, "data.shape=[3,64,64]", "paths.data=/images"])
    assert (cfg.data.name, cfg.data.num_classes, cfg.data.eps) == (data, 1000, "4/255")
    assert (cfg.data.source.size, cfg.data.source.num_classes) == (64, 1000)
    assert cfg.data.augment.flip
    assert list(compose_config("train", [f"data={data}", *given]).data.shape) == [3, 224, 224]
