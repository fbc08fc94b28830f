"""Batches hold the right pixels, seed and epoch determine each draw, and crops equal torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor

from dkl.data import Augment, Batch, Batches, Batching, Images
from tests.data.common import make_images


def collect(batches: Batches, epoch: int = 0) -> Batch:
    """Concatenate an epoch into one batch."""
    parts = list(batches.epoch(epoch))
    return Batch(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def numbered(count: int) -> Images:
    """Different images, each labeled with its position."""
    return Images(torch.randint(256, (count, 1, 4, 4), dtype=torch.uint8), torch.arange(count))


def test_without_augmentation_pixels_are_in_order_and_scaled() -> None:
    data = make_images(10)
    batches = Batches(data, Batching(4))
    assert [len(batch.labels) for batch in batches.epoch()] == [4, 4, 2]
    got = collect(batches)
    assert got.images.tolist() == [
        [[[torch.tensor(pixel / 255).item() for pixel in row] for row in plane] for plane in image]
        for image in data.images.tolist()
    ]
    assert torch.equal(got.labels, data.labels)
    assert torch.equal(collect(batches, 1).images, got.images)


@pytest.mark.parametrize("augment", [None, Augment(crop_padding=2, flip=True)])
def test_every_epoch_is_a_permutation(augment: Augment | None) -> None:
    batches = Batches(numbered(23), Batching(5, shuffle=True, augment=augment))
    orders = [collect(batches, epoch).labels.tolist() for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(23))
        assert order != list(range(23))
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(("count", "size", "whole", "all_"), [(10, 4, 2, 3), (12, 4, 3, 3), (3, 3, 1, 1), (1, 1, 1, 1)])
def test_the_last_partial_batch_is_kept_or_dropped(count: int, size: int, whole: int, all_: int) -> None:
    for drop_last, expected in ((True, whole), (False, all_)):
        batches = Batches(make_images(count), Batching(size, drop_last=drop_last, shuffle=True))
        sizes = [len(batch.labels) for batch in batches.epoch()]
        assert len(batches) == len(sizes) == expected
        assert sum(sizes) == (whole * size if drop_last else count)
        assert set(sizes[:-1]) <= {size}


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        Batches(make_images(3), Batching(size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("augment", [None, Augment(crop_padding=1, flip=True)])
def test_dtype_and_memory_format(dtype: torch.dtype, memory_format: torch.memory_format, augment: Augment) -> None:
    data = make_images(6)
    got = next(Batches(data, Batching(6, dtype=dtype, memory_format=memory_format, augment=augment)).epoch())
    plain = next(Batches(data, Batching(6, augment=augment)).epoch())
    assert got.images.dtype == dtype
    assert got.images.is_contiguous(memory_format=memory_format)
    assert torch.equal((got.images * 255).round(), (plain.images * 255).round())
    assert (got.images.min() >= 0, got.images.max() <= 1) == (True, True)


def variants(image: Tensor, pad: int) -> list[Tensor]:
    """All crops of the zero-padded ``image[C, H, W]``, then all of them mirrored."""
    _, height, width = image.shape
    padded = F.pad(image, (pad,) * 4)
    crops = [
        padded[:, down : down + height, right : right + width]
        for down in range(2 * pad + 1)
        for right in range(2 * pad + 1)
    ]
    return crops + [crop.flip(2) for crop in crops]


def key(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_crops_and_mirroring_are_uniform(pad: int, flip: bool) -> None:
    copies, epochs, shape = 2000, 5, (3, 6, 5)
    image = torch.randint(1, 256, shape, dtype=torch.uint8)
    known = variants(image, pad)[: None if flip else (2 * pad + 1) ** 2]
    counts = dict.fromkeys(map(key, known), 0)
    assert len(counts) == len(known)
    data = Images(image.expand(copies, *shape), torch.zeros(copies, dtype=torch.int64))
    batches = Batches(data, Batching(128, augment=Augment(crop_padding=pad, flip=flip), seed=3))
    for epoch in range(epochs):
        for augmented in (collect(batches, epoch).images * 255).round().to(torch.uint8):
            counts[key(augmented)] += 1  # KeyError if it is not one of the known crops
    assert sum(counts.values()) == copies * epochs
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_images_of_a_batch_are_augmented_independently() -> None:
    image = torch.randint(1, 256, (1, 4, 4), dtype=torch.uint8)
    place = {key(variant): number for number, variant in enumerate(variants(image, 1))}
    data = Images(image.expand(16200, 1, 4, 4), torch.zeros(16200, dtype=torch.int64))
    got = collect(Batches(data, Batching(100, augment=Augment(crop_padding=1, flip=True), seed=5)))
    drawn = torch.tensor([place[key(augmented)] for augmented in (got.images * 255).round().to(torch.uint8)])
    pairs = (drawn[0::2] * len(place) + drawn[1::2]).bincount(minlength=len(place) ** 2)
    assert chisquare(pairs.numpy()).pvalue > 0.001


def test_augmented_images_keep_their_labels() -> None:
    data, pad = numbered(40), 2
    known = [set(map(key, variants(image, pad))) for image in data.images]
    got = collect(Batches(data, Batching(16, shuffle=True, augment=Augment(crop_padding=pad, flip=True))), 2)
    for augmented, label in zip((got.images * 255).round().to(torch.uint8), got.labels, strict=True):
        assert key(augmented) in known[label]
