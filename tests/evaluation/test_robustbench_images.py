"""``protocol=robustbench`` takes the images of RobustBench's leaderboard, in its order."""

import numpy as np
import pytest
import torch

from dkl.cli import main
from dkl.config import DataConfig, compose_config, typed
from dkl.data import ImageFiles, Images
from dkl.errors import UserError
from dkl.evaluation.job import robustbench_images
from dkl.published import imagenet_files


def data_of(name: str) -> DataConfig:
    return typed(compose_config("evaluate", [f"data={name}", "model=preact_resnet18"]).data, DataConfig)


def test_imagenet_has_the_5000_images_in_order() -> None:
    files = imagenet_files()
    assert files[:2] == ["ILSVRC2012_val_00015253.JPEG", "ILSVRC2012_val_00020685.JPEG"]
    assert len(set(files)) == 5000
    others = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 50_001)]
    labels = np.random.default_rng(0).permutation(np.arange(50_000) % 1000).tolist()
    names = [f"n{label:08}/{name}" for label, name in zip(labels, others, strict=True)]
    test = ImageFiles.from_names("val", names, labels, size=224)
    found = robustbench_images(test, data_of("imagenet"))
    assert [name.decode().partition("/")[2] for name in found.names] == files
    assert all(int(name.decode()[1:9]) == label for name, label in zip(found.names, found.labels.tolist(), strict=True))
    with pytest.raises(UserError, match="complete the validation set"):
        robustbench_images(test.select(torch.arange(100)), data_of("imagenet"))


def test_cifar_has_its_first_10000_images_in_order() -> None:
    test = Images(torch.zeros(10_001, 1, 1, 1, dtype=torch.uint8), torch.arange(10_001) % 10)
    assert torch.equal(robustbench_images(test, data_of("cifar10")).labels, test.labels[:10_000])


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["data=digits", "protocol=robustbench"], "not of digits"),
        (["data=cifar10", "protocol=robustbenhc"], "give protocol=robustbench"),
        (["data=cifar10", "protocol=robustbench", "n=20000"], "lower it"),
    ],
)
def test_a_wrong_protocol_is_refused(overrides: list[str], fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "checkpoint=weights.pt", "model=small_cnn", *overrides])
    assert fix in capsys.readouterr().err
