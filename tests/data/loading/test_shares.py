"""The concatenated shares of all processes equal the batches of one process bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dkl.data import Augment, Batch, Batches, Batching, SyntheticImages, SyntheticMixing
from dkl.errors import UserError
from tests.data.common import make_images

AUGMENTS = {
    "none": None,
    "crop": Augment(crop_padding=2, flip=True),
    "all": Augment(crop_padding=2, flip=True, rotation=15, cutout=3),
    "cutout": Augment(crop_padding=2, flip=True, second_view="cutout"),
    "autoaugment": Augment(crop_padding=2, flip=True, second_view="autoaugment"),
}


def joined(shares: list[Batch]) -> tuple[Any, Any]:
    """Concatenate images and labels of the shares, view by view."""
    views = shares[0].views
    images = [torch.cat(parts) for parts in zip(*(share.images.chunk(views) for share in shares), strict=True)]
    labels = [torch.cat(parts) for parts in zip(*(share.labels.chunk(views) for share in shares), strict=True)]
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize(("world", "shuffle"), [(2, True), (3, False), (4, True)])
@pytest.mark.parametrize("name", AUGMENTS)
def test_shares_make_up_the_batch(name: str, world: int, shuffle: bool) -> None:
    data = make_images(24, (3, 20, 20), classes=24)
    options: dict[str, Any] = {"augment": AUGMENTS[name], "shuffle": shuffle, "seed": 3}
    whole = list(Batches(data, Batching(10, **options)).epoch(2))
    parts = [list(Batches(data, Batching(10, rank=rank, world=world, **options)).epoch(2)) for rank in range(world)]
    assert [len(part) for part in parts] == [3] * world
    for number, batch in enumerate(whole):
        shares, size = [part[number] for part in parts], [10, 10, 4][number]
        images, labels = joined(shares)
        assert torch.equal(images, batch.images)
        assert torch.equal(labels, batch.labels)
        assert (batch.first, batch.total, batch.share) == (0, size, 1)
        places = [part.tolist() for part in torch.arange(size).tensor_split(world)]
        assert [share.first for share in shares] == [part[0] for part in places]
        assert [len(share.labels) // share.views for share in shares] == [len(part) for part in places]
        assert {share.total for share in shares} == {size}
        assert sum(share.share for share in shares) == pytest.approx(1)


def test_shares_of_mixed_batches_make_up_the_batch(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", image=draw.integers(256, size=(50, 8, 8, 3), dtype=np.uint8), label=np.arange(50) % 9)
    synthetic = SyntheticImages([tmp_path / "s.npz"], shape=(3, 8, 8), num_classes=9)
    options: dict[str, Any] = {"augment": AUGMENTS["all"], "shuffle": True}
    mixing = SyntheticMixing(synthetic, 0.6)
    data = make_images(13)
    whole = list(Batches(data, Batching(5, **options), mixing).epoch())
    parts = [list(Batches(data, Batching(5, rank=rank, world=3, **options), mixing).epoch()) for rank in range(3)]
    for number, batch in enumerate(whole):
        images, labels = joined([part[number] for part in parts])
        assert torch.equal(images, batch.images)
        assert torch.equal(labels, batch.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": True}, r"2 images.*3 processes.*trainer\.batch_size.*trainer\.drop_last=true"),
        ({"shuffle": False}, r"2 images.*3 processes.*evaluation\.batch_size$"),
        ({"shuffle": True, "drop_last": True, "batch_size": 2}, r"2 images.*3 processes.*trainer\.batch_size$"),
    ],
)
def test_a_batch_smaller_than_the_world_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Batches(make_images(12), Batching(**{"batch_size": 5, "world": 3, **options}))
    Batches(make_images(12), Batching(5, world=3, shuffle=True, drop_last=True))
    with pytest.raises(UserError, match=r"no batch of 13 in 12 training images: lower trainer\.batch_size"):
        Batches(make_images(12), Batching(13, shuffle=True, drop_last=True))
    Batches(make_images(13), Batching(5, world=3))


@pytest.mark.parametrize(("count", "first", "views"), [(1, 0, 1), (2, 4, 2), (3, 0, 2), (7, 4, 1)])
def test_the_parts_of_a_batch_make_up_the_batch(count: int, first: int, views: int) -> None:
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
