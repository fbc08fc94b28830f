"""Images refuse other dtypes and shapes; subsets are class-balanced; the hash identifies the content."""

import pytest
import torch

from dkl.data import Images
from dkl.errors import UserError
from tests.data.common import make_images


@pytest.mark.parametrize(
    ("images", "labels", "wrong"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "N, C, H, W"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"\(2,\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.int64), r"\(2,\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "int64"),
    ],
)
def test_other_dtypes_and_shapes_are_refused(images: torch.Tensor, labels: torch.Tensor, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        Images(images, labels)


def test_images_of_another_set_are_found_whatever_their_place_and_label() -> None:
    pixels = torch.randint(256, (30, 2, 3, 3), dtype=torch.uint8).to(memory_format=torch.channels_last)
    training, order = Images(pixels[:20], torch.zeros(20, dtype=torch.int64)), torch.randperm(15)
    test = Images(pixels[15:][order], torch.ones(15, dtype=torch.int64))
    assert test.count_in(training) == (5, 15)
    assert training.count_in(training) == (20, 20)
    shifted = Images(pixels[:20].roll(1, dims=1), training.labels)
    assert shifted.count_in(training) == (0, 20), "the same bytes in another order"


def first_of_each_class(labels: list[int], size: int) -> list[int]:
    """Positions of a subset, built in rounds: the first image of every class, then the second, …"""
    rounds: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    for place, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        rounds.setdefault(counts[label], []).append(place)
    in_rounds = [place for number in sorted(rounds) for place in rounds[number]]
    return sorted(in_rounds[:size])


@pytest.mark.parametrize("size", [1, 5, 17, 99, 100])
def test_a_subset_is_the_first_of_every_class(size: int) -> None:
    data = Images(torch.randint(256, (100, 1, 3, 3), dtype=torch.uint8), torch.randint(5, (100,)).pow(2))
    subset = data.balanced(size)
    places = first_of_each_class(data.labels.tolist(), size)
    assert torch.equal(subset.images, data.images[places])
    assert torch.equal(subset.labels, data.labels[places])


@pytest.mark.parametrize("size", [0, -1, 11])
def test_an_impossible_subset_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"{size} images"):
        make_images(10).balanced(size)


def test_the_hash_identifies_the_content() -> None:
    data = make_images(6)
    strided = Images(data.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), data.labels.clone())
    assert not strided.images.is_contiguous()
    assert strided.sha256 == data.sha256
    pixel, label = data.images.clone(), data.labels.clone()
    pixel[3, 1, 2, 2] ^= 1
    label[5] += 1
    others = [
        Images(pixel, data.labels),
        Images(data.images, label),
        Images(data.images.reshape(6, 3, 4, 16), data.labels),
        Images(data.images.flip(0), data.labels),
        data.balanced(5),
    ]
    assert len({images.sha256 for images in [data, *others]}) == 6


def test_held_out_images_are_the_first_of_each_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 2, 1, 2, 0])
    data = Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), labels)
    rest, held = data.holdout(5)
    assert held.images.flatten().tolist() == [0, 1, 3, 5, 6]  # two of class 0, two of class 1, one of class 2
    assert rest.images.flatten().tolist() == [2, 4, 7, 8, 9]
    assert held.labels.tolist() == [0, 0, 1, 1, 2]
    assert rest.labels.tolist() == [0, 0, 1, 2, 0]
    assert data.balanced(5).sha256 == held.sha256
    rest, held = data.holdout(5, balanced=False)
    assert (held.images.flatten().tolist(), rest.images.flatten().tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


@pytest.mark.parametrize("count", [0, -1, 10, 11])
def test_an_impossible_holdout_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=rf"selection\.holdout={count} .*between 1 and 9"):
        make_images(10).holdout(count)
