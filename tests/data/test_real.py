"""The real CIFAR-10 and CIFAR-100 load: sizes, balance and channel means are the published ones."""

import os

import pytest

from dkl.data import cifar

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
