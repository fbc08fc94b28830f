"""Two streams in step: whole passes, the same for any workers and processes, from any epoch on."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dkl.data import Augment, Batching, Images, StreamBatches, StrongView
from dkl.errors import UserError
from tests.data.common import make_images

AUGMENT = Augment(crop_padding=1, flip=True, crop_fill="reflect")


def make(workers: int = 0, rank: int = 0, world: int = 1, strong: bool = True, seed: int = 5) -> StreamBatches:
    torch.manual_seed(0)
    labeled, unlabeled = make_images(6, (3, 8, 8)), make_images(30, (3, 8, 8))
    view = StrongView() if strong else None
    batching = Batching(4, augment=AUGMENT, seed=seed, workers=workers, rank=rank, world=world)
    return StreamBatches(labeled, batching, steps=5, unlabeled=unlabeled, ratio=2, strong=view)


def test_streams_are_endless_passes_over_both_sets() -> None:
    batches = make()
    assert len(batches) == 5
    got = [batch for epoch in range(6) for batch in batches.epoch(epoch)]
    assert all(len(batch.labels) == 4 and len(batch.unlabeled.labels) == 8 for batch in got)
    order = torch.cat([batch.indices for batch in got])  # 120 positions are 20 passes over 6 images
    passes = order.view(20, 6)
    assert all(sorted(one.tolist()) == list(range(6)) for one in passes)
    assert len({tuple(one.tolist()) for one in passes}) > 10


def test_views_are_draws_of_their_own() -> None:
    data = make_images(1, (3, 8, 8))
    copies = Images(data.images.expand(40, -1, -1, -1), data.labels.expand(40))
    batches = StreamBatches(data, Batching(40, augment=AUGMENT), unlabeled=copies, ratio=1)
    (batch,) = batches.epoch(1)
    crops = {tuple(window.flatten().tolist()) for window in reflected(data.images[0])}
    weak, second = ((255 * view).round().byte() for view in batch.unlabeled[:2])
    assert {tuple(image.flatten().tolist()) for image in torch.cat([weak, second])} <= crops
    assert sum(torch.equal(one, other) for one, other in zip(weak, second, strict=True)) < 10


def reflected(image: Tensor) -> list[Tensor]:
    """All 18 crops of an image that numpy has padded by its mirrored border, and their mirror images."""
    padded = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect"))
    crops = [padded[:, down : down + 8, right : right + 8] for down in range(3) for right in range(3)]
    return [*crops, *(crop.flip(-1) for crop in crops)]


def test_batches_that_cannot_be_filled_or_shared_are_refused() -> None:
    few = make_images(7, (3, 8, 8))
    with pytest.raises(UserError, match=r"needs 4 x 2 unlabeled images, but there are 7"):
        StreamBatches(few, Batching(4), unlabeled=few, ratio=2)
    with pytest.raises(UserError, match=r"4 labeled images cannot be shared equally by 3 processes"):
        StreamBatches(few, Batching(4, world=3))


@pytest.mark.parametrize("setting", [{"scale": [0.5, 2.0]}, {"unrotated": 0.5}, {"blur": 0.5}], ids=str)
def test_settings_of_images_with_masks_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=rf"augment\.{next(iter(setting))}=.*images of semi-supervised training.* set data\.augment"
    ):
        StreamBatches(make_images(6, (3, 8, 8)), Batching(4, augment=Augment(**setting)))


def usb(labels: np.ndarray, classes: int, per_class: int, seed: int, official: bool) -> list[int]:
    """``sample_labeled_unlabeled_data`` of USB after ``np.random.seed(seed)``, and what DKL's ``train.py`` prints."""
    np.random.seed(seed)
    if official:
        np.random.randn(2, 4)
        np.random.uniform(32)
    chosen: list[int] = []
    for label in range(classes):
        places = np.where(labels == label)[0]
        np.random.shuffle(places)
        chosen.extend(places[:per_class])
    return sorted(chosen)


@pytest.mark.parametrize("official", [False, True])
def test_the_labeled_subset_is_usbs(official: bool) -> None:
    labels = torch.from_numpy(np.random.default_rng(3).permutation(np.arange(60) % 4))
    data = replace(make_images(60), labels=labels)
    for per_class, seed in ((2, 0), (5, 7)):
        indices = data.labeled_indices(per_class, seed, official=official)
        assert indices.tolist() == usb(labels.numpy(), 4, per_class, seed, official)
        assert data.at(indices).per_class(4).tolist() == [per_class] * 4
    assert all(a < b for a, b in pairwise(indices.tolist()))


def test_a_class_with_too_few_images_is_named() -> None:
    data = replace(make_images(5), labels=torch.tensor([0, 0, 2, 2, 2]))
    with pytest.raises(UserError, match=r"labels_per_class=3, but class 0 has 2 training images: lower it"):
        data.labeled_indices(3, 0)
