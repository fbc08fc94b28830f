"""ImageNet-LT's lists are read in order, mistakes in them are found before training, and shots are counted."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dkl.data import ImageFiles, imagenet_lt, shot_groups
from dkl.errors import UserError
from tests.data.image_files import write_folder

TRAIN = ["train/n03/000.JPEG 2", "train/n01/000.JPEG 0", "train/n01/001.JPEG 0", "train/n02/001.JPEG 1"]
TEST = ["val/n01/000.JPEG 0", "val/n02/000.JPEG 1", "val/n03/000.JPEG 2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("imagenet")
    write_folder(base / "train", 2)
    write_folder(base / "val", 1, first=50)
    return base


def load(root: Path, lists: Path, train: list[str] | None = None, test: list[str] | None = None) -> Any:
    for name, lines in (("train.txt", train or TRAIN), ("test.txt", test or TEST)):
        (lists / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return imagenet_lt(str(root), str(lists / "train.txt"), str(lists / "test.txt"), 3, 16)


def test_lists_are_read_in_order(root: Path, tmp_path: Path) -> None:
    training, testing = load(root, tmp_path)
    assert isinstance(training, ImageFiles)
    assert [f"{training.path(i).relative_to(root).as_posix()} {training.labels[i]}" for i in range(4)] == TRAIN
    assert [f"{testing.path(i).relative_to(root).as_posix()} {testing.labels[i]}" for i in range(3)] == TEST
    assert training.per_class(3).tolist() == [2, 1, 1]
    assert training.shape == (3, 16, 16)
    assert training.tensor().shape == (4, 3, 16, 16)


def test_empty_lines_and_windows_line_ends_are_ignored(root: Path, tmp_path: Path) -> None:
    training, _ = load(root, tmp_path, train=["", *(f"{line}\r" for line in TRAIN), "  "])
    assert training.labels.tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/n01/000.JPEG", r"train\.txt, line 5: expected a relative path, a space and a label, not 'train/n01"),
        ("train/n01/000.JPEG -1", r"line 5: expected a relative path, a space and a label"),
        ("train/n01/000.JPEG 1.0", r"line 5: expected a relative path, a space and a label"),
        ("train/n01/000.JPEG cat", r"line 5: expected a relative path, a space and a label"),
        ("train/n03/001.JPEG 3", r"line 5: label 3 is not below data\.num_classes=3"),
        ("/train/n03/001.JPEG 2", r"line 5: /train/n03/001\.JPEG must be relative to data\.source\.root"),
        ("../train/n03/001.JPEG 2", r"line 5: \.\./train/n03/001\.JPEG must be relative"),
        ("train/n01/001.JPEG 0", r"line 5: train/n01/001\.JPEG is listed twice"),
        ("val/n02/000.JPEG 1", r"tests on 1 images that \S+train\.txt trains on, such as val/n02/000\.JPEG"),
        ("train/n09/000.JPEG 1", r"1 of 5 checked files of \S+train\.txt are missing under \S+, such as \S+n09"),
    ],
)
def test_a_wrong_line_is_named(root: Path, tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(root, tmp_path, train=[*TRAIN, line])


def test_a_class_without_training_images_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt has no image of 1 of 3 classes, such as 1"):
        load(root, tmp_path, train=TRAIN[:3])


def test_missing_empty_and_binary_lists_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in [
        ("none.txt", r"there is no list \S+none\.txt: .*OpenLongTailRecognition.*data\.source\.train_list"),
        ("empty.txt", r"empty\.txt is empty"),
        ("binary.txt", r"binary\.txt cannot be read as a list"),
    ]:
        with pytest.raises(UserError, match=message):
            imagenet_lt(str(root), str(tmp_path / name), str(tmp_path / name), 3, 16)


def test_the_first_file_and_a_sample_of_the_others_are_checked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["dkl.data.folders"], "SAMPLE", 2)
    with pytest.raises(UserError, match="are missing"):
        load(root, tmp_path, train=["train/n01/gone.JPEG 0", *TRAIN])
    many = [f"train/n01/gone{number}.JPEG 0" for number in range(40)]
    with pytest.raises(UserError, match=r"of 3 checked files of \S+ are missing"):
        load(root, tmp_path, train=[*TRAIN, *many])


def test_shots_are_over_100_and_under_20() -> None:
    counts = torch.tensor([101, 100, 20, 19, 1280, 5])
    groups = {name: mask.nonzero().flatten().tolist() for name, mask in shot_groups(counts).items()}
    assert groups == {"many": [0, 4], "medium": [1, 2], "few": [3, 5]}


def test_counts_are_printed_with_a_warning_if_they_differ_from_the_published_list(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root, tmp_path)
    printed = capsys.readouterr().err
    assert "4 + 3 images, classes with many/medium/few: 0/0/3" in printed
    assert "warning: the published list has 385/479/136 many/medium/few classes" in printed
    monkeypatch.setattr(sys.modules["dkl.data.folders"], "PUBLISHED_SHOTS", {"many": 0, "medium": 0, "few": 3})
    load(root, tmp_path)
    assert "warning" not in capsys.readouterr().err
