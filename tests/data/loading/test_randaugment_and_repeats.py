"""RandAugment is timm's, drawn for every copy of an image; repeats show fewer images, each several times."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import RandAugment
from torchvision.transforms import RandomResizedCrop

from dkl.data import Augment, Batches, Batching, FileBatches
from dkl.errors import UserError
from tests.data.common import make_images
from tests.data.image_files import make_files

POLICY, SIZE = "rand-m7-mstd0.5", 24


def timms() -> RandAugment:
    """RandAugment from timm's own training pipeline, with its default interpolation."""
    settings = {"is_training": True, "auto_augment": POLICY, "interpolation": "random"}
    (found,) = (step for step in create_transform(SIZE, **settings).transforms if isinstance(step, RandAugment))
    return found


def expected(path: Path, seed: int, policy: RandAugment) -> Any:
    """The pixels of a file for ``seed``: torchvision's box, cropped by Pillow, then timm's policy."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    top, left, height, width = RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
    image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(policy(image))


def derived(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


@pytest.mark.parametrize("repeats", [1, 3])
def test_every_copy_of_an_image_has_its_own_crop_and_policy(tmp_path: Path, repeats: int) -> None:
    files = make_files(tmp_path, size=SIZE)
    augment = Augment(randaugment=POLICY, repeats=repeats)
    (batch,) = FileBatches(files, Batching(12, augment=augment, shuffle=True, seed=7)).epoch(3)
    seeds = torch.randint(2**32, (repeats, 12), generator=derived(7, 3, 1)).tolist()
    policy, shown = timms(), set()
    for pixels, index in zip((batch.images * 255).round().byte(), batch.indices.tolist(), strict=True):
        copies = [expected(files.path(index), seeds[copy][index], policy) for copy in range(repeats)]
        same = [np.array_equal(pixels.permute(1, 2, 0).numpy(), copy) for copy in copies]
        assert sum(same) == 1
        shown.add((index, same.index(True)))
    assert len(shown) == 12  # no copy appears twice


@pytest.mark.parametrize(("count", "repeats"), [(12, 3), (13, 3), (20, 4), (5, 9)])
@pytest.mark.parametrize("batch_size", [4, 7, 12])
def test_repeats_keep_the_length_of_an_epoch_and_show_each_chosen_image_that_often(
    count: int, repeats: int, batch_size: int
) -> None:
    data = make_images(count)
    batches = Batches(data, Batching(batch_size, augment=Augment(repeats=repeats), shuffle=True, seed=3))
    chosen = []
    for epoch in range(4):
        got = list(batches.epoch(epoch))
        assert [len(batch.labels) for batch in got] == [len(part) for part in torch.arange(count).split(batch_size)]
        indices = torch.cat([batch.indices for batch in got])
        assert torch.equal(torch.cat([batch.labels for batch in got]), data.labels[indices])
        times = sorted(indices.bincount().tolist(), reverse=True)
        times = [time for time in times if time]
        whole, rest = divmod(count, repeats)
        assert times == [repeats] * whole + [rest] * (rest > 0)
        in_batches = [set(batch.indices.tolist()) for batch in got]
        assert sum(map(len, in_batches)) <= len(times) + len(got) - 1  # copies stay together
        chosen.append(indices.tolist())
    assert len(set(map(tuple, chosen))) > 1


def test_copies_in_memory_are_augmented_differently() -> None:
    data = make_images(32, (3, 12, 12))
    augment = Augment(crop_padding=4, flip=True, repeats=32)
    (batch,) = Batches(data, Batching(32, augment=augment, shuffle=True)).epoch(1)
    assert len(batch.indices.unique()) == 1
    assert len(batch.images.flatten(1).unique(dim=0)) > 20


@pytest.mark.parametrize("policy", ["", "m7", "rand-k3", "augmix-m3"])
def test_an_unknown_policy_is_refused(policy: str) -> None:
    with pytest.raises(UserError, match=rf"data\.augment\.randaugment={policy} is not a policy of timm"):
        Augment(randaugment=policy)


def test_incompatible_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.augment\.repeats=0 must be a whole number from 1"):
        Augment(repeats=0)
    with pytest.raises(UserError, match=r"randaugment=rand\S+ does not change images in memory.*randaugment=null"):
        Batches(make_images(4), Batching(2, augment=Augment(randaugment=POLICY)))
