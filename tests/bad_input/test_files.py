"""Broken checkpoints, run folders, teachers and data, through the commands that read them."""

from pathlib import Path

import pytest

from dkl.data import image_files, image_folder, npz
from dkl.errors import UserError
from tests.bad_input.conftest import Refuse

FOREIGN = "evaluate model=small_cnn data=digits checkpoint=bad/weights/"
UNFINISHED = "evaluate run=bad/runs/unfinished "
NPZ = "train data=npz data.num_classes=4 data.shape=[1,8,8] data.augment.crop_padding=1 paths.data=bad/data/"
UNNORMALIZED = "task.teacher.mean=null task.teacher.std=null"
STUDENT = f"train recipe=kd_cifar data=digits model=small_cnn task.teacher.name=small_cnn {UNNORMALIZED} "

CHECKPOINTS = {
    "seven_classes.pt": "does not fit this SmallCNN | classifier.bias (7,) for (10,) | number of classes",
    "missing_key.pt": "1 missing: classifier.bias",
    "extra_key.pt": "1 unexpected: extra.weight",
    "nan.pt": "NaN or infinite values in 1 tensors (features.0.weight)",
    "no_weights.pt": "holds no state_dict | model_state_dict",
    "list.pt": "holds no state_dict",
    "code.pt": "more than tensors and plain values | system | could run code",
    "code.pkl": "more than tensors and plain values | could run code",
    "cut.pt": "is damaged or incomplete",
    "flipped.pt": "does not match its checksum",
    "text.pt": "not a checkpoint of torch",
    "html.pt": "perhaps a saved web page",
    "no_bytes.pt": "not a checkpoint of torch",
    "folder.pt": "no checkpoint at bad/weights/folder.pt",
    "missing.pt": "no checkpoint at bad/weights/missing.pt",
    "good.pt weights=best": "weights=best | leave it out",
}

RUNS = {
    "evaluate run=bad/weights/good.pt": "not the folder of a run",
    "evaluate run=bad/runs/nothing": "no config.yaml",
    "evaluate run=bad/runs/file": "not the folder of a run",
    "evaluate run=bad/runs/no_yaml": "bad/runs/no_yaml/config.yaml | not of this version",
    "evaluate run=bad/runs/empty_yaml": "bad/runs/empty_yaml/config.yaml | not of this version",
    "evaluate run=bad/runs/unknown_key": "'colour' | use the version that trained it",
    "evaluate run=bad/runs/no_checkpoint": "no checkpoint at bad/runs/no_checkpoint/checkpoint.pt",
    "evaluate run=bad/runs/text_checkpoint": "text_checkpoint/checkpoint.pt is not a checkpoint",
    "evaluate run=bad/runs/unfinished": "4 of 9 epochs",
    "evaluate run=bad/runs/foreign": "checkpoint=bad/runs/foreign/checkpoint.pt model=",
    UNFINISHED + "attack=pgd": "'attack' | did you mean attacks",
    UNFINISHED + "attacks=standart": "did you mean standard?",
    UNFINISHED + "attacks=pgd20": "did you mean pgd-20",
    UNFINISHED + "eps=-1": "eps=-1 is negative",
    UNFINISHED + "norm=l2": "norm=l2 needs its own radius",
    UNFINISHED + "attacks=none eps=8/255": "leave out eps=8/255",
    UNFINISHED + "device=gpu": "device=gpu | auto, cpu or cuda",
    UNFINISHED + "label=": "label=''",
    UNFINISHED + "paths.results=bad/weights/text.pt": "bad/weights/text.pt is a file",
    UNFINISHED.rstrip() + ",bad/runs/nothing": "run=bad/runs/nothing is not the folder",
    "evaluate checkpoint=bad/weights/good.pt data=digits": "model=… data=…",
}

TEACHERS = {
    STUDENT: "weights from one place | task.teacher.run=FOLDER",
    STUDENT + "task.teacher.checkpoint=missing.pt": "missing.pt",
    STUDENT + "task.teacher.run=missing": "task.teacher.run=missing has no checkpoint.pt",
    STUDENT + "task.teacher.checkpoint=bad/weights/seven_classes.pt": "does not fit this SmallCNN",
}

DATA = {
    NPZ + "missing": "there is no file bad/data/missing/train.npz | paths.data",
    NPZ + "unnamed": "no array named image and label",
    NPZ + "from_one": "labels run from 1 to 4 | number the labels from 0",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_refused(refuse: Refuse, name: str) -> None:
    refuse(FOREIGN + name, CHECKPOINTS[name])


@pytest.mark.parametrize("line", RUNS | TEACHERS | DATA)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, (RUNS | TEACHERS | DATA)[line])


ARRAYS = {
    "floats": "must be uint8 (N, H, W, 3) | float64",
    "channels_first": "(40, 1, 8, 8)",
    "few_labels": "label must be 40 integers | (30,)",
    "float_labels": "label must be 40 integers | float64",
    "empty": "hold no images",
    "objects": "plain arrays | Object arrays",
    "html": "html/train.npz | not a zip file",
    "no_bytes": "no_bytes/train.npz cannot be read",
    "cut": "cut/train.npz cannot be read",
    "no_test": "no_test/test.npz",
}

FOLDERS = {
    "corrupt_png": "cat/0.png cannot be decoded | replace or remove it",
    "html_png": "cat/0.png cannot be decoded",
    "other_size": "dog/0.png is (3, 8, 9) | data=imagefiles",
    "empty_class": "dog holds no images | .png",
    "other_classes": "same classes | dog, wolf",
    "no_classes": "no class folders",
    "file_as_folder": "there is no folder",
    "missing": "there is no folder | <class>",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_refused(broken: Path, name: str) -> None:
    folder = broken / "bad" / "data" / name
    with pytest.raises(UserError) as refused:
        npz(str(folder / "train.npz"), str(folder / "test.npz"))
    for part in ARRAYS[name].split(" | "):
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_images_are_refused(broken: Path, name: str) -> None:
    folder = broken / "bad" / "data" / name
    with pytest.raises(UserError) as refused:
        image_folder(str(folder / "train"), str(folder / "test"))
    for part in FOLDERS[name].split(" | "):
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_number_of_class_folders_is_checked(broken: Path) -> None:
    folder = broken / "bad" / "data" / "pictures"
    with pytest.raises(UserError, match=r"has 2 class folders, but data.num_classes=3: set data.num_classes=2"):
        image_files(str(folder / "train"), str(folder / "test"), num_classes=3, size=8)
