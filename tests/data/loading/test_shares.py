"""The shares of all processes, one after another, are the batches of one process bit for bit; holding out splits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dkl.data import Augment, Batch, Batches, Images, Synthetic
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
    """Whole images and labels, view by view."""
    views = shares[0].views
    images = [torch.cat(parts) for parts in zip(*(share.images.chunk(views) for share in shares), strict=True)]
    labels = [torch.cat(parts) for parts in zip(*(share.labels.chunk(views) for share in shares), strict=True)]
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_shares_are_the_whole(name: str, world: int, shuffle: bool) -> None:
    data = make_images(24, (3, 20, 20), classes=24)
    options: dict[str, Any] = {"augment": AUGMENTS[name], "shuffle": shuffle, "seed": 3}
    whole = list(Batches(data, 10, **options).epoch(2))
    parts = [list(Batches(data, 10, rank=rank, world=world, **options).epoch(2)) for rank in range(world)]
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


def test_shares_of_mixed_batches_are_the_whole(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", image=draw.integers(256, size=(50, 8, 8, 3), dtype=np.uint8), label=np.arange(50) % 9)
    synthetic = Synthetic([tmp_path / "s.npz"], shape=(3, 8, 8), num_classes=9)
    options: dict[str, Any] = {"augment": AUGMENTS["all"], "shuffle": True, "synthetic": synthetic, "fraction": 0.6}
    data = make_images(13)
    whole = list(Batches(data, 5, **options).epoch())
    parts = [list(Batches(data, 5, rank=rank, world=3, **options).epoch()) for rank in range(3)]
    for number, batch in enumerate(whole):
        images, labels = joined([part[number] for part in parts])
        assert torch.equal(images, batch.images)
        assert torch.equal(labels, batch.labels)


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"shuffle": True}, r"2 images.*3 processes.*trainer\.batch_size.*trainer\.drop_last=true"),
        ({"shuffle": False}, r"2 images.*3 processes.*evaluation\.batch_size$"),
        ({"shuffle": True, "drop_last": True, "batch_size": 2}, r"2 images.*3 processes.*trainer\.batch_size$"),
    ],
)
def test_a_batch_smaller_than_the_world_is_refused(options: dict[str, Any], mend: str) -> None:
    with pytest.raises(UserError, match=mend):
        Batches(make_images(12), **{"batch_size": 5, "world": 3, **options})
    Batches(make_images(12), 5, world=3, shuffle=True, drop_last=True)
    Batches(make_images(13), 5, world=3)


def test_held_out_images_are_the_first_of_each_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 2, 1, 2, 0])
    data = Images(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), labels)
    rest, held = data.holdout(5)
    assert held.images.flatten().tolist() == [0, 1, 3, 5, 6]  # two of class 0, two of class 1, one of class 2
    assert rest.images.flatten().tolist() == [2, 4, 7, 8, 9]
    assert held.labels.tolist() == [0, 0, 1, 1, 2]
    assert rest.labels.tolist() == [0, 0, 1, 2, 0]
    assert data.balanced(5).sha256 == held.sha256


@pytest.mark.parametrize("count", [0, -1, 10, 11])
def test_as_many_held_out_as_there_are_are_refused(count: int) -> None:
    with pytest.raises(UserError, match=rf"selection\.holdout={count} .*between 1 and 9"):
        make_images(10).holdout(count)
