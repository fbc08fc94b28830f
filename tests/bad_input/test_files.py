"""Broken checkpoints, run folders, teachers and data, through the commands that read them."""

from pathlib import Path

import pytest
from huggingface_hub import constants

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
    "evaluate run=bad/runs/unknown_key": "'colour' | use the version of dkl that trained",
    "evaluate run=bad/runs/ignored_keys": "'data.augment.mixup', 'optimizer.betas' | + | ignored | remove their lines",
    "evaluate run=bad/runs/no_checkpoint": "no checkpoint at bad/runs/no_checkpoint/checkpoint.pt",
    "evaluate run=bad/runs/text_checkpoint": "text_checkpoint/checkpoint.pt is not a checkpoint",
    "evaluate run=bad/runs/unfinished": "4 of 9 epochs",
    "evaluate run=bad/runs/foreign": "checkpoint=bad/runs/foreign/checkpoint.pt model=",
    UNFINISHED + "attacks=standart": "did you mean standard?",
    UNFINISHED + "attacks=pgd20": "did you mean pgd-20",
    UNFINISHED + "eps=-1": "eps=-1 is negative",
    UNFINISHED + "norm=l2": "norm=l2 needs its own radius",
    UNFINISHED + "attacks=none eps=8/255": "leave out eps=8/255",
    UNFINISHED + "device=mps": "device=mps is not supported | auto, cpu or cuda",
    UNFINISHED + "weights=bets": "weights=bets must be last, average or best",
    "evaluate run=bad/runs/edited": "was trained with seed=0, not 1",
    UNFINISHED + "+foo=1": "no key 'foo' | choose one of attacks",
    UNFINISHED + "attacks=pgd-20 package=true": "attacks=pgd-20 names none",
    UNFINISHED + "mean=[0.5]": "mean is for networks of others | leave it out",
    UNFINISHED + "architecture=Mine": "architecture is for networks of others | leave it out",
    UNFINISHED + "arguments.width=9": "arguments.width | leave it out",
    UNFINISHED + "mirrored=false": "mirrored=false is for images with masks",
    UNFINISHED + "paths.results=bad/weights/text.pt": "bad/weights/text.pt is a file",
    UNFINISHED.rstrip() + ",bad/runs/nothing": "run=bad/runs/nothing is not the folder",
    "evaluate checkpoint=bad/weights/good.pt data=digits": "model=… data=…",
}

GOOD = "evaluate data=digits checkpoint=bad/weights/good.pt "
CIFAR = "evaluate data=cifar10 checkpoint=bad/weights/good.pt "
NETWORKS = {
    "evaluate data=digits checkpoint=bad/weights/program.pt": "is a program | any code on this machine | trust=true",
    GOOD + "model=small_cnn:": "model=small_cnn: names no network | package.module:function",
    GOOD + "model=tim:resnet18": "there is no module 'tim'",
    GOOD + "model=no-module:f": "'no-module' is no kind of network | timm, hf-hub, local-dir, robustbench",
    GOOD + "model=torch.nn:Lineer": "'Lineer' | did you mean Linear or",
    GOOD + "model=math:pi": "model=math:pi is a float",
    GOOD + "model=torch.nn:Linear": "missing 2 required positional arguments",
    GOOD + "model=torch.nn:Flatten": "does not fit this Flatten | 8 unexpected: classifier.bias (10,)",
    GOOD + "model=timm:resnet999": "'resnet999'",
    GOOD + "model=timm:small_cnn mean=[0.5]": "mean and std go together",
    GOOD + "model=timm:small_cnn mean=[0.5,0.5] std=[1,1]": "one value per channel | 1",
    GOOD + "model=timm:small_cnn arguments.colour=red": "arguments: | 'colour': leave it out",
    GOOD + "model=small_cnn mean=[0.5]": "use model.KEY=VALUE",
    GOOD + "model=small_cnn network=timm:small_cnn": "model and network | leave one out",
    "evaluate data=digits model=timm:small_cnn": "publishes no weights | checkpoint=FILE",
    "evaluate data=imagenet model=timm:resnet18.a1_in1k": "hub http://127.0.0.1:9 does not answer | checkpoint=FILE",
    "evaluate data=npz checkpoint=x.pt model=small_cnn": "no value yet: data.num_classes",
    "evaluate data=digits model=torch.nn:Linear": "has no weights: add checkpoint=FILE",
    "evaluate data=digits checkpoint=bad/weights/html.safetensors model=small_cnn": "html.safetensors | saved web page",
    "evaluate data=digits model=local-dir:bad/weights/nothing": "nothing/config.json",
    "evaluate data=digits model=local-dir:bad/weights/no_json": "config.json cannot be read",
    "evaluate data=digits model=local-dir:bad/weights/no_architecture": "names no timm architecture",
    "evaluate data=digits model=local-dir:bad/weights/other_architecture": "no model 'os.system'",
    "evaluate data=digits model=local-dir:bad/weights/seven_classes": "has 7 classes, the data 10",
    "evaluate data=digits model=local-dir:bad/weights/no_weights": "model.safetensors or | pytorch_model.bin",
    "evaluate data=digits model=hf-hub:name": "hf-hub:USER/MODEL",
    "evaluate data=digits model=hf-hub:user/missing": "hub http://127.0.0.1:9 does not answer",
    "evaluate data=cifar10 model=robustbench:Cui2023": "ambiguous | Cui2023Decoupled_WRN-28-10",
    "evaluate data=cifar10 model=robustbench:Pang2020Boosting": "cannot be built here",
    CIFAR + "model=small_cnn": "does not fit this SmallCNN | features.0.weight (16, 1, 3, 3) for (16, 3, 3, 3)",
    CIFAR + "model=timm:small_cnn arguments.in_chans=1": "does not take images [3, 32, 32] of cifar10",
    "evaluate data=digits checkpoint=bad/weights/seven_classes.pt model=timm:small_cnn arguments.num_classes=7": (
        "gives [2, 7] | logits [2, 10]"
    ),
}

EXPORT = "export run=bad/runs/unfinished to=out "
EXPORTS = {
    "export": "run= is missing",
    "export run=bad/runs/unfinished": "to= is missing",
    EXPORT: "4 of 9 epochs",
    EXPORT + "format=onxx": "'onxx' | did you mean onnx?",
    EXPORT + "push=name": "push=name | push=user/name",
    EXPORT + "push=user/name": "the hub http://127.0.0.1:9 does not answer",
    EXPORT + "results=missing": "results=missing is not a folder",
    "export run=bad/runs/unfinished to=bad/weights/good.pt": "good.pt is a file",
}

VERIFICATIONS = {
    "verify": "name one record",
    "verify missing.json checkpoint=bad/weights/good.pt": "no record missing.json",
    "verify bad/weights/text.pt checkpoint=bad/weights/good.pt": "no record: give the file that ends with .json",
    "verify bad/weights/text.pt n=0": "n=0 must be a whole number",
}

TEACHERS = {
    STUDENT: "weights from one place | task.teacher.run=FOLDER",
    STUDENT + "task.teacher.checkpoint=bad/weights/seven_classes.pt": "does not fit this SmallCNN",
    STUDENT + "task.teacher.run=bad/runs/unfinished": "has trained 4 of 9 epochs",
    STUDENT + "task.teacher.name=smal_cnn task.teacher.checkpoint=bad/weights/good.pt": "did you mean small_cnn",
    STUDENT + "task.teacher.mean=[0.5,0.5] task.teacher.std=[0.5,0.5] task.teacher.checkpoint=bad/weights/good.pt": (
        "task.teacher.mean=[0.5, 0.5] | one value per channel, of which there are 1"
    ),
}

DATA = {
    NPZ + "missing": "there is no file bad/data/missing/train.npz | paths.data",
    NPZ + "unnamed": "no array named image and label",
    NPZ + "from_one": "labels run from 1 to 4 | set data.num_classes=5 or number the labels from 0",
    NPZ + "negative_labels": "labels run from -1 to 2 | allows 0 to 3; number the labels from 0",
    "train data=digits data.train_size=11 model.name=cifar_resnet18 trainer.batch_size=5": (
        "cannot be trained on one image | trainer.drop_last=true"
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_refused(refuse: Refuse, name: str) -> None:
    refuse(FOREIGN + name, CHECKPOINTS[name])


@pytest.mark.parametrize("line", RUNS | TEACHERS | DATA)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, (RUNS | TEACHERS | DATA)[line])


def test_a_script_with_a_command_line_of_its_own_is_refused(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reads_arguments.py").write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    refuse(GOOD + "model=reads_arguments:Net", "reads_arguments has no 'Net'")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    refuse(GOOD + "model=ends:Net", "ends ends the program when it is imported")


@pytest.mark.parametrize("line", NETWORKS | EXPORTS | VERIFICATIONS)
def test_a_network_is_refused(refuse: Refuse, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refuse(line, (NETWORKS | EXPORTS | VERIFICATIONS)[line])
