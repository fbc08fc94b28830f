"""Rotation equals torchvision's and Pillow's; holes and second views are distributed as documented."""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2_contingency, chisquare, kstest
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2

from dkl.data import Augment, Batch, Batches, Batching, Images
from dkl.data.augment import rotate
from dkl.errors import UserError
from tests.data.common import make_images

FORK = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns if threads are running


def bytes_of(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


@pytest.mark.parametrize("size", [(32, 32), (9, 14), (15, 8)])
def test_rotation_equals_torchvisions(size: tuple[int, int]) -> None:
    images = torch.randint(1, 256, (40, 3, *size), dtype=torch.uint8)
    degrees = torch.linspace(-180, 180, 40)
    expected = [
        v2.functional.rotate(image, angle.item(), interpolation=v2.InterpolationMode.NEAREST, fill=0)
        for image, angle in zip(images, degrees, strict=True)
    ]
    differing = (rotate(images, degrees) != torch.stack(expected)).any(1).float().mean()
    assert differing < 0.002  # a source exactly between two pixels may be rounded either way


def test_angles_are_uniform_and_independent() -> None:
    """The angle can be read from an image with a single lit spot right of the center."""
    size, count = 129, 400
    image = torch.zeros(1, size, size, dtype=torch.uint8)
    image[0, size // 2 - 1 : size // 2 + 2, size - 6 : size - 2] = 255
    data = Images(image.expand(count, 1, size, size), torch.zeros(count, dtype=torch.int64))
    batch = next(Batches(data, Batching(count, augment=Augment(rotation=15), seed=4)).epoch())
    place = torch.arange(size) - size // 2
    lit = batch.images[:, 0] > 0
    down = (lit * place[:, None]).sum((1, 2)) / lit.sum((1, 2))
    right = (lit * place[None, :]).sum((1, 2)) / lit.sum((1, 2))
    angles = torch.atan2(-down, right).rad2deg()
    assert kstest(angles.numpy(), "uniform", args=(-15, 30)).pvalue > 0.001
    assert kstest(torch.stack([angles[::2], angles[1::2]]).diff(dim=0).numpy()[0] / 30, triangle).pvalue > 0.001


def triangle(x: Any) -> Any:
    """Distribution of the difference of two independent uniform variables."""
    return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


def crop_of(length: int, center: tuple[int, int], size: tuple[int, int]) -> bytes:
    """A white image of ``size`` with a hole around ``center``, by loops that follow DeVries and Taylor's definition."""
    image = np.full(size, 255, np.uint8)
    for row in range(center[0] - length // 2, center[0] - length // 2 + length):
        for column in range(center[1] - length // 2, center[1] - length // 2 + length):
            if 0 <= row < size[0] and 0 <= column < size[1]:
                image[row, column] = 0
    return image.tobytes()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_centers_of_holes_are_uniform(length: int) -> None:
    size, count = (5, 7), 7000
    expected = Counter(crop_of(length, (row, column), size) for row in range(5) for column in range(7))
    white = torch.full((count, 2, *size), 255, dtype=torch.uint8)
    data = Images(white, torch.zeros(count, dtype=torch.int64))
    batches = Batches(data, Batching(100, augment=Augment(cutout=length)))
    got: Counter[bytes] = Counter()
    for batch in batches.epoch(1):
        assert torch.equal(batch.images[:, 0], batch.images[:, 1])
        got.update(image.numpy().tobytes() for image in bytes_of(batch.images[:, 0]))
    assert got.keys() == expected.keys()
    frequencies = np.array([got[key] / count for key in expected])
    assert chisquare(frequencies * count, np.array(list(expected.values())) * count / 35).pvalue > 0.001


def test_a_cutout_view_is_an_independent_draw_with_a_hole_of_16() -> None:
    data = Images(torch.randint(1, 256, (60, 3, 32, 32), dtype=torch.uint8), torch.arange(60) % 7)
    plain, batch = (
        next(Batches(data, Batching(60, augment=Augment(crop_padding=4, flip=True, second_view=view), seed=1)).epoch(2))
        for view in (None, "cutout")
    )
    first, second = batch.images.chunk(2)
    assert (batch.views, batch.total, batch.share, len(batch.labels)) == (2, 60, 1.0, 120)
    assert batch.labels.tolist() == 2 * data.labels.tolist()
    assert torch.equal(first, plain.images)
    padded, apart, widest = F.pad(data.images, (4,) * 4), 0, 0
    for number, image in enumerate(bytes_of(second)):
        crops = [padded[number, :, down : down + 32, right : right + 32] for down in range(9) for right in range(9)]
        variants = torch.stack(crops + [crop.flip(2) for crop in crops])
        fits = ((variants == image) | (image == 0)).flatten(1).all(1)
        assert fits.sum() == 1
        hole = (variants[fits][0] != image).any(0)
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        box = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert not box.any()
        assert min(box.shape[1:]) >= 4  # 8 if the border clips it, 4 of them may be padding
        assert max(box.shape[1:]) <= 16
        widest = max(widest, min(box.shape[1:]))
        apart += not torch.equal(bytes_of(first[number]), variants[fits][0])
    assert widest == 16
    assert apart > 50


def policy_outcomes(image: Tensor, draws: int) -> Counter[bytes]:
    """Counts of the images that torchvision's policy makes of one image."""
    policy = v2.AutoAugment(AutoAugmentPolicy.CIFAR10, fill=128)
    return Counter(policy(image).numpy().tobytes() for _ in range(draws))


def test_the_policy_is_torchvisions_for_cifar10_with_gray_fill() -> None:
    image, count = torch.randint(256, (3, 16, 16), dtype=torch.uint8), 2000
    expected = policy_outcomes(image, count)
    data = Images(image.expand(count, 3, 16, 16), torch.zeros(count, dtype=torch.int64))
    got: Counter[bytes] = Counter()
    for batch in Batches(data, Batching(500, augment=Augment(second_view="autoaugment"))).epoch():
        first, second = bytes_of(batch.images).chunk(2)
        assert torch.equal(first, image.expand(500, 3, 16, 16))
        got.update(view.numpy().tobytes() for view in second)
    common = [key for key in expected | got if expected[key] + got[key] >= 10]
    table = np.array([[counts[key] for key in common] for counts in (expected, got)])
    assert table.sum() > 0.85 * 2 * count
    rest = 2 * [count] - table.sum(1)
    assert chi2_contingency(np.column_stack([table, rest])).pvalue > 0.001


@FORK
@pytest.mark.parametrize("how", ["exhausted", "closed", "failed"])
def test_no_worker_outlives_the_epoch(how: str) -> None:
    data = make_images(40, (3, 16, 16))
    batches = Batches(data, Batching(4, augment=Augment(second_view="autoaugment"), workers=2))
    others = set(multiprocessing.active_children())  # of tests that ran before in this process
    iterator: Iterator[Batch] = batches.epoch()
    next(iterator)
    assert len(set(multiprocessing.active_children()) - others) == 2
    if how == "exhausted":
        assert len(list(iterator)) == 9
    elif how == "closed":
        iterator.close()
    elif how == "failed":
        with pytest.raises(ZeroDivisionError):
            step(iterator)
    del iterator
    assert set(multiprocessing.active_children()) <= others


def step(batches: Iterator[Batch]) -> None:
    """A training loop that raises."""
    for batch in batches:
        _ = len(batch.labels) // 0


BAD = {
    "second_view": [{"second_view": "autoagument"}],
    "rotation": [{"rotation": -1.0}, {"rotation": 181.0}, {"rotation": float("nan")}],
    "cutout": [{"cutout": -1}],
    "crop_padding": [{"crop_padding": -4}],
}


@pytest.mark.parametrize(("key", "values"), [(key, values) for key, cases in BAD.items() for values in cases])
def test_values_out_of_range_are_named(key: str, values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"data\.augment\.{key}={values[key]}"):
        Augment(**values)


@pytest.mark.parametrize(
    ("shape", "augment", "wrong"),
    [
        ((1, 32, 32), Augment(second_view="autoaugment"), "autoaugment needs 3 channels"),
        ((1, 8, 8), Augment(second_view="cutout"), "second_view=cutout"),
        ((3, 8, 32), Augment(cutout=8), "cutout=8"),
    ],
)
def test_images_that_do_not_allow_an_augmentation_are_refused(
    shape: tuple[int, int, int], augment: Augment, wrong: str
) -> None:
    with pytest.raises(UserError, match=wrong):
        Batches(make_images(4, shape), Batching(2, augment=augment))


class Noise:
    """Adds to an image a random byte of torch's global generator."""

    def __call__(self, image: Tensor) -> Tensor:
        return image + torch.randint(256, (1,), dtype=torch.uint8)


def test_your_own_transforms_change_both_views_of_every_image_the_same_on_all_processes() -> None:
    data = make_images(24, (3, 8, 8))
    settings: dict[str, Any] = {"second_view": "cutout", "transforms": [v2.ColorJitter(0.5), Noise()]}
    augment = Augment(**settings | {"second_view": None})
    before = torch.get_rng_state()
    whole = [bytes_of(batch.images) for batch in Batches(data, Batching(12, augment=augment, shuffle=True)).epoch(3)]
    assert torch.equal(torch.get_rng_state(), before)
    plain = [bytes_of(batch.images) for batch in Batches(data, Batching(12, shuffle=True)).epoch(3)]
    assert not (torch.cat(whole) == torch.cat(plain)).flatten(1).all(1).any()
    parts = [
        [bytes_of(batch.images) for batch in Batches(data, batching).epoch(3)]
        for batching in (Batching(12, augment=augment, shuffle=True, rank=rank, world=2) for rank in (0, 1))
    ]
    assert torch.equal(torch.cat(whole), torch.cat([torch.cat(pair) for pair in zip(*parts, strict=True)]))
    with_views = next(Batches(make_images(4, (3, 32, 32)), Batching(4, augment=Augment(**settings))).epoch())
    assert with_views.views == 2
    torch.manual_seed(0)  # of one image: the oracle applies the transforms one after the other
    seeds = torch.randint(2**32, (24,), generator=torch.Generator().manual_seed(0))
    expected = []
    for image, seed in zip(data.images, seeds.tolist(), strict=True):
        torch.manual_seed(seed)
        expected.append(v2.ColorJitter(0.5)(image) + torch.randint(256, (1,), dtype=torch.uint8))
    assert torch.equal(augment.transformed(data.images, seeds), torch.stack(expected))


@pytest.mark.parametrize(
    ("transform", "wrong"),
    [
        (lambda image: image.float(), "must return uint8 images \\[3, 8, 8\\], not torch.float32"),
        (lambda image: image[:, :4], "not torch.uint8 \\[3, 4, 8\\]"),
        (lambda image: None, "not NoneType"),
        ("flip", "'flip', which takes no image"),
    ],
)
def test_a_transform_that_makes_no_image_is_named(transform: Any, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        next(Batches(make_images(4), Batching(2, augment=Augment(transforms=[transform]))).epoch())
