"""``protocol=robustbench`` takes the images of RobustBench's leaderboard, in its order."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dkl.cli import main
from dkl.config import DataConfig, EvaluateConfig, compose_config, typed
from dkl.config.overrides import compose_explained, expand_network
from dkl.data import ImageFiles, Images
from dkl.errors import UserError
from dkl.evaluation import job
from dkl.evaluation.job import robustbench_images
from dkl.evaluation.subject import foreign_subject
from dkl.published import imagenet_files, known_networks
from tests.data.image_files import write_image
from tests.data.sources.test_folders import zip_folder
from tests.data.sources.test_tar_shards import pack


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


CROPPED = transforms.CenterCrop(224)
ORACLE = {
    "Res256Crop224": transforms.Compose([transforms.Resize(256), CROPPED]),
    "BicubicRes256Crop224": transforms.Compose([transforms.Resize(256, InterpolationMode.BICUBIC), CROPPED]),
    "Crop288": transforms.CenterCrop(288),
    "Res224": transforms.Resize((224, 224)),
    "XCiT": transforms.Compose([transforms.Resize(224, InterpolationMode.BICUBIC), CROPPED]),
}
"""RobustBench's preprocessing, as its data.py and timm's settings of XCiT have it, without ToTensor."""
OF_IMAGENET = [each for each in known_networks() if each.dataset == "imagenet" and each.network]
EVALUATE = ["checkpoint=w.pt", "+data.source.train=null", "paths.data=.", "protocol=robustbench"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with weights that are never read and a validation set of 1,000 images, two of them listed."""
    monkeypatch.chdir(tmp_path)
    Path("w.pt").touch()
    listed = ["ILSVRC2012_val_00000007.JPEG", "ILSVRC2012_val_00000003.JPEG"]
    monkeypatch.setattr(job, "imagenet_files", lambda: listed)
    for number in range(4):
        write_image(Path(f"{number}.JPEG"), number)
        with Image.open(f"{number}.JPEG") as image:
            image.resize((300 + 7 * number, 270 + 61 * number)).save(f"{number}.JPEG")
    for label in range(1000):
        path = Path(f"imagenet/val/n{label:08}/ILSVRC2012_val_{label:08}.JPEG")
        path.parent.mkdir(parents=True)
        os.link(f"{label % 4}.JPEG", path)
    return tmp_path


def asked(name: str, *overrides: str, data: str = "imagenet") -> EvaluateConfig:
    words = expand_network([f"model=robustbench:{name}", f"data={data}", *EVALUATE, *overrides])
    return typed(compose_explained("evaluate", words), EvaluateConfig)


def prepared(monkeypatch: pytest.MonkeyPatch, name: str, *overrides: str, data: str = "imagenet") -> job.EvaluationJob:
    """The evaluation of model ``name`` with a network that is never called."""
    monkeypatch.setattr(job, "load_network", lambda subject: (torch.nn.Linear(1, 1), "weights"))
    return job.prepare(asked(name, *overrides, data=data))


@pytest.mark.parametrize("preprocessing", ORACLE)
def test_a_model_sees_images_as_robustbench_prepares_them(
    preprocessing: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(network.id for network in OF_IMAGENET if network.preprocessing == preprocessing)
    found = prepared(monkeypatch, name)
    assert (found.protocol.eps_text, found.protocol.norm, found.warnings) == ("4/255", "linf", ())
    assert found.test.labels.tolist() == [7, 3]
    for pixels, number in zip(found.test.tensor(), (7 % 4, 3), strict=True):
        with Image.open(f"{number}.JPEG") as image:
            expected = np.array(ORACLE[preprocessing](image.convert("RGB"))).transpose(2, 0, 1)
        assert torch.equal(pixels, torch.from_numpy(expected))


def test_all_networks_of_imagenet_have_a_preprocessing_of_their_own_record(here: Path) -> None:
    assert {network.preprocessing for network in OF_IMAGENET} == set(ORACLE)
    config = asked("Mo2022When_ViT-B")
    subject = foreign_subject(config)
    usual = replace(subject, data=replace(subject.data, interpolation="bilinear"))
    assert subject.config_hash != usual.config_hash


def test_images_come_from_shards_and_zips_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {}
    for number in range(1000):
        key = f"ILSVRC2012_val_{number:08}"
        members |= {f"{key}.jpg": Path(f"{number % 4}.JPEG").read_bytes(), f"{key}.cls": b"%d" % number}
    pack(here / "imagenet-1k-wds" / "imagenet1k-validation-00.tar", members)
    shards, files = (prepared(monkeypatch, "Wong2020Fast", data=name) for name in ("imagenet_shards", "imagenet"))
    assert torch.equal(shards.test.tensor(), files.test.tensor())
    assert shards.test.labels.tolist() == [7, 3]
    zip_folder(here / "elsewhere.zip", here / "imagenet")
    zipped = prepared(monkeypatch, "Wong2020Fast", f"+data.source.val={here}/elsewhere.zip")
    assert torch.equal(zipped.test.tensor(), files.test.tensor())
    assert zipped.test.sha256 == files.test.sha256


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["data.interpolation=bicubic"], "leave out data.interpolation"),
        (["data.shape=[3,256,256]"], "leave out data.shape"),
        (["data.center_crop=0.9"], "leave out data.center_crop"),
    ],
)
def test_another_preprocessing_is_refused(
    overrides: list[str], fix: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=fix):
        prepared(monkeypatch, "Wong2020Fast", *overrides)


def test_missing_images_are_counted_and_the_first_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match=r"4\d\d\d of its 5000 images .*ILSVRC2012_val_00015253\.JPEG"):
        prepared(monkeypatch, "Wong2020Fast")


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
