"""Images refuse what they are not; subsets take the first of every class alike; the hash is one of the content."""

import pytest
import torch

from dkl.data import Batch, Images
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
def test_other_tensors_are_refused(images: torch.Tensor, labels: torch.Tensor, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        Images(images, labels)


def first_of_each_class(labels: list[int], size: int) -> list[int]:
    """Places of a subset, built round by round: the first image of every class, then the second, …"""
    rounds: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    for place, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        rounds.setdefault(counts[label], []).append(place)
    in_turn = [place for number in sorted(rounds) for place in rounds[number]]
    return sorted(in_turn[:size])


@pytest.mark.parametrize("size", [1, 4, 5, 17, 40, 99, 100])
def test_a_subset_is_the_first_of_every_class(size: int) -> None:
    data = Images(torch.randint(256, (100, 1, 3, 3), dtype=torch.uint8), torch.randint(5, (100,)).pow(2))
    subset = data.balanced(size)
    places = first_of_each_class(data.labels.tolist(), size)
    assert torch.equal(subset.images, data.images[places])
    assert torch.equal(subset.labels, data.labels[places])


def test_a_subset_has_classes_alike() -> None:
    data = make_images(103, classes=4)
    assert data.balanced(40).labels.bincount().tolist() == [10] * 4
    assert set(data.balanced(42).labels.bincount().tolist()) == {10, 11}
    assert data.balanced(None) is data


@pytest.mark.parametrize("size", [0, -1, 11])
def test_an_impossible_subset_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"{size} images"):
        make_images(10).balanced(size)


def test_the_hash_is_one_of_the_content() -> None:
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


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("first", [0, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_a_batch_are_the_batch(count: int, first: int, views: int) -> None:
    total = 20 if first else 0
    batch = Batch(torch.rand(7 * views, 1, 2, 2), torch.arange(7 * views), views, first, total, torch.arange(7) + 30)
    parts = list(batch.parts(count))
    for view in range(views):
        for values, whole in ((0, batch.images), (1, batch.labels)):
            joined = torch.cat([part[values].chunk(views)[view] for part in parts])
            assert torch.equal(joined, whole.chunk(views)[view])
    assert torch.equal(torch.cat([part.indices for part in parts]), batch.indices)
    sizes = [len(part.indices) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [part.first for part in parts] == [first + sum(sizes[:number]) for number in range(count)]
    assert {(part.views, part.total) for part in parts} == {(views, total or 7)}
    assert sum(part.share for part in parts) == pytest.approx(7 / 20 if first else 1.0)
    assert all(part.indices is None for part in batch._replace(indices=None).parts(count))
