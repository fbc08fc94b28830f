"""Artificial images are always the same, fit the shape and classes of any dataset, and are separable by class."""

import pytest
import torch

from dkl.data import Images, noisy_patterns


@pytest.mark.parametrize(("shape", "classes"), [((3, 32, 32), 1000), ((1, 8, 8), 10), ((3, 16, 16), 3)])
def test_they_do_not_depend_on_the_global_generator(shape: tuple[int, ...], classes: int) -> None:
    first = noisy_patterns(shape, classes)
    torch.rand(7)
    before = torch.get_rng_state()
    for one, other in zip(first, noisy_patterns(list(shape), classes), strict=True):
        assert isinstance(one, Images)
        assert one.shape == shape
        assert one.sha256 == other.sha256
    assert torch.equal(torch.get_rng_state(), before)
    assert first[0].sha256 != first[1].sha256


def test_a_few_classes_are_shown_equally_often() -> None:
    for classes, shown in ((1000, 4), (3, 3), (1, 1)):
        train, test = noisy_patterns((3, 8, 8), classes, train_size=24, test_size=12)
        assert train.labels.bincount().tolist() == [24 // shown] * shown
        assert test.labels.bincount().tolist() == [12 // shown] * shown


def test_the_nearest_pattern_is_the_class() -> None:
    train, test = noisy_patterns((3, 8, 8), 10)
    pixels, others = (images.images.double().flatten(1) for images in (train, test))
    means = torch.stack([pixels[train.labels == label].mean(0) for label in range(4)])
    assert torch.equal(torch.cdist(others, means).argmin(1), test.labels)
