"""Batches do not depend on the processes or workers that make them: shares are bit for bit the batch of one process."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dkl.data import (
    Augment,
    Batch,
    Batches,
    Batching,
    StreamBatches,
    StrongView,
    SyntheticImages,
    SyntheticMixing,
    digit_scenes,
    make_loader,
)
from dkl.errors import UserError
from tests.data.common import make_images
from tests.data.image_files import make_files

FORK = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns if threads are running

CROP = {"crop_padding": 2, "flip": True}
STRONG = {"flip": True, "randaugment": "rand-m7-mstd0.5", "repeats": 3}
MASKS = {"scale": [0.5, 2.0], "rotation": 10.0, "unrotated": 0.5, "blur": 0.5, "flip": True}

LOADERS: dict[str, tuple[dict[str, Any] | None, int]] = {
    "memory": (None, 10),
    "memory, crop": (CROP, 10),
    "memory, all": ({**CROP, "rotation": 15, "cutout": 3}, 10),
    "memory, cutout": ({**CROP, "second_view": "cutout"}, 10),
    "memory, autoaugment": ({**CROP, "second_view": "autoaugment"}, 10),
    "mixed": ({**CROP, "rotation": 15, "cutout": 3}, 5),
    "files": (None, 8),
    "files, flip": ({"flip": True}, 8),
    "files, strong": (STRONG, 8),
    "masks": (None, 8),
    "masks, all": (MASKS, 8),
    "streams, weak": ({**CROP, "crop_fill": "reflect"}, 12),
    "streams, strong": ({**CROP, "crop_fill": "reflect"}, 12),
}
"""Kind of images and augmentation -> the augmentation, and the size of a batch."""


def make(folder: Path, name: str) -> Callable[..., list[Batch]]:
    """Return a function that makes all batches of an epoch, for any processes and workers."""
    torch.manual_seed(0)
    augment, size = LOADERS[name]
    kind, _, view = name.partition(", ")
    if kind == "files":
        data: Any = make_files(folder)
    elif kind == "masks":
        data = digit_scenes((32, 40), 11, 255, train_size=12)[0]
    else:
        data = make_images(24, (3, 20, 20), classes=24)
    if kind == "mixed":
        pixels = np.random.default_rng(0).integers(256, size=(50, 20, 20, 3), dtype=np.uint8)
        np.savez(folder / "s.npz", image=pixels, label=np.arange(50) % 9)
        mixing = SyntheticMixing(SyntheticImages([folder / "s.npz"], shape=(3, 20, 20), num_classes=9), 0.6)

    def batches(*, shuffle: bool = True, seed: int = 3, epoch: int = 2, **shared: int) -> list[Batch]:
        batching = Batching(size, augment=augment and Augment(**augment), shuffle=shuffle, seed=seed, **shared)
        if kind == "mixed":
            return list(Batches(data, batching, mixing).epoch(epoch))
        if kind == "streams":
            change = StrongView() if view == "strong" else None
            return list(StreamBatches(data, batching, steps=3, unlabeled=data, ratio=2, strong=change).epoch(epoch))
        return list(make_loader(data, batching).epoch(epoch))

    return batches


def parts_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, each view of its own."""
    indices = [] if batch.indices is None else [batch.indices]
    return [*batch.images.chunk(batch.views), *batch.labels.chunk(batch.views), *indices, *(batch.unlabeled or ())]


@pytest.mark.parametrize(("world", "shuffle"), [(2, True), (3, False), (4, True)])
@pytest.mark.parametrize("name", LOADERS)
def test_shares_make_up_the_batch(tmp_path: Path, name: str, world: int, shuffle: bool) -> None:
    batches = make(tmp_path, name)
    whole, *parts = batches(shuffle=shuffle), *(batches(shuffle=shuffle, rank=n, world=world) for n in range(world))
    for batch, *shares in zip(whole, *parts, strict=True):
        joined = [torch.cat(values) for values in zip(*map(parts_of, shares), strict=True)]
        assert all(torch.equal(*pair) for pair in zip(joined, parts_of(batch), strict=True))
        total = len(batch.labels) // batch.views
        assert (batch.first, batch.total, batch.share) == (0, total, 1)
        places = [part.tolist() for part in torch.arange(total).tensor_split(world)]
        assert [share.first for share in shares] == [part[0] for part in places]
        assert [len(share.labels) // share.views for share in shares] == [len(part) for part in places]
        assert {(share.total, share.views) for share in shares} == {(total, batch.views)}
        assert sum(share.share for share in shares) == pytest.approx(1)
        if batch.unlabeled is not None:
            cut = zip(batch.parts(world), shares, strict=True)
            assert all(torch.equal(*pair) for both in cut for pair in zip(*map(parts_of, both), strict=True))


@FORK
@pytest.mark.parametrize("name", [name for name in LOADERS if name != "memory"])
def test_batches_depend_on_seed_and_epoch_only(tmp_path: Path, name: str) -> None:
    """Not on workers, epochs before or the global generators, which keep their states."""
    batches = make(tmp_path, name)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    alone, other, helped = batches(), batches(epoch=1), batches(workers=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    torch.rand(1), np.random.rand(), random.random()
    for same in (helped, batches()):
        for batch, again in zip(alone, same, strict=True):
            assert all(torch.equal(*pair) for pair in zip(parts_of(batch), parts_of(again), strict=True))
            assert (batch.views, batch.first, batch.total) == (again.views, again.first, again.total)
    for changed in (other, batches(seed=4)):
        assert not torch.equal(alone[0].images.chunk(alone[0].views)[-1], changed[0].images.chunk(alone[0].views)[-1])


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
