"""Real images load: CIFAR with the published sizes, balance and means; a ResNet trains on files of ImageNet."""

import os
from pathlib import Path

import pytest
import timm
import torch

from dkl.console import bar
from dkl.data import Augment, FileBatches, cifar, imagenet
from dkl.models import normalise_input
from dkl.tasks import Classification
from dkl.training.loop import train_epoch

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("DKL_DATA_DIR" not in os.environ, reason="needs real images: set DKL_DATA_DIR to their folder"),
]

MEANS = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4867, 0.4408)}


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar(name: str, classes: int) -> None:
    train, test = cifar(name, os.environ["DKL_DATA_DIR"], download=False)
    for images, count in ((train, 50_000), (test, 10_000)):
        assert images.images.shape == (count, 3, 32, 32)
        assert images.labels.bincount().tolist() == [count // classes] * classes
    flat = train.images.transpose(0, 1).reshape(3, -1)
    means = [plane.sum().item() / plane.numel() / 255 for plane in flat]
    assert means == pytest.approx(MEANS[name], abs=1e-3)


@pytest.fixture
def sample() -> str:
    """Ten classes of ImageNet, 40 training and 20 validation images each."""
    folder = Path(os.environ["DKL_DATA_DIR"]) / "imagenet10"
    if not folder.is_dir():
        pytest.skip(f"needs a sample of ImageNet in {folder}")
    return str(folder)


def test_real_imagenet_files(sample: str) -> None:
    train, test = imagenet(sample, 10, 64)
    assert train.per_class(10).tolist() == [40] * 10
    assert test.per_class(10).tolist() == [20] * 10
    colours = test.balanced(100).tensor().double().div(255).mean((0, 2, 3))
    assert colours.tolist() == pytest.approx([0.485, 0.456, 0.406], abs=0.06)  # ten classes are not a thousand


def test_a_resnet_trains_on_real_imagenet_files(sample: str) -> None:
    train, test = imagenet(sample, 10, 64)
    model = timm.create_model("resnet18", num_classes=10)
    task = Classification(normalise_input(model, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = model.fc.weight.detach().clone()
    batches = FileBatches(train.balanced(20), 10, augment=Augment(flip=True), shuffle=True, workers=2)
    with bar("train", len(batches)) as progress:
        row = train_epoch(task, batches, optimizer, epoch=1, epochs=1, bar=progress)
    assert len(batches) == 2
    assert 1 < row["loss"] < 5
    assert not torch.equal(model.fc.weight, before)
    logits = [model.eval()(batch.images) for batch in FileBatches(test.balanced(12), 8).epoch()]
    assert [tuple(part.shape) for part in logits] == [(8, 10), (4, 10)]
