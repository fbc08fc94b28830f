"""Batches mix real and synthetic images as DM-Improves-AT does."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from dkl.assembly import load_synthetic, make_batches
from dkl.config import TrainConfig, compose_config, typed
from dkl.data import Augment, Batch, Batches, Batching, Images, SyntheticImages, SyntheticMixing
from dkl.errors import UserError

REAL, GENERATED = 23, 40


def make_real(size: int = 6) -> Images:
    """Real images, labeled with their positions."""
    return Images(torch.randint(1, 256, (REAL, 3, size, size), dtype=torch.uint8), torch.arange(REAL))


def make_synthetic(folder: Path, size: int = 6, count: int = GENERATED) -> SyntheticImages:
    """Synthetic images in two files; their labels continue those of the real images."""
    draw = np.random.default_rng(1)
    pixels, labels = draw.integers(1, 256, size=(count, size, size, 3), dtype=np.uint8), np.arange(count) + REAL
    for name, part in (("a", slice(0, 15)), ("b", slice(15, count))):
        np.savez(folder / f"{name}.npz", image=pixels[part], label=labels[part])
    return SyntheticImages([folder / "a.npz", folder / "b.npz"], shape=(3, size, size), num_classes=REAL + count)


def mix(folder: Path, batch_size: int, fraction: float, **options: Any) -> Batches:
    options = {"shuffle": True, **options}
    mixing = SyntheticMixing(make_synthetic(folder), fraction, options.pop("epoch_size", None))
    return Batches(make_real(), Batching(batch_size, **options), mixing)


def real_of(batch: Batch) -> list[int]:
    return [label for label in batch.labels.tolist() if label < REAL]


@pytest.mark.parametrize(("batch_size", "fraction"), [(10, 0.7), (5, 0.6), (8, 0.8), (64, 0.5)])
def test_every_pass_shows_each_real_image_once(tmp_path: Path, batch_size: int, fraction: float) -> None:
    batches, share = mix(tmp_path, batch_size, fraction, epoch_size=31 * batch_size - 1), batch_size
    while share > batch_size * (1 - fraction) + 1e-9:  # real images per batch
        share -= 1
    share = max(share, batch_size - int(batch_size * fraction))
    drawn = [real_of(batch) for batch in batches.epoch(4)]
    assert len(drawn) == len(batches) == 31
    assert all(len(batch.labels) == batch_size for batch in batches.epoch(4))
    passes: list[list[int]] = [[]]
    for own in drawn:
        assert len(own) == min(share, REAL - len(passes[-1]))  # the last batch of a pass may hold fewer
        passes[-1] += own
        if len(passes[-1]) == REAL:
            passes.append([])
    assert all(sorted(whole) == list(range(REAL)) for whole in passes[:-1])
    assert all(one != two for one, two in pairwise(passes[:-1]))
    assert len(set(passes[-1])) == len(passes[-1])


def test_synthetic_images_are_uniform_with_replacement_and_positions_are_shuffled(tmp_path: Path) -> None:
    batches = mix(tmp_path, 10, 0.7, epoch_size=20_000)
    labels = torch.stack([batch.labels for batch in batches.epoch()])
    synthetic = labels[labels >= REAL]
    assert chisquare((synthetic - REAL).bincount(minlength=GENERATED).numpy()).pvalue > 0.001
    assert any(len(set(row)) < len(row) for row in labels.tolist())
    places = (labels < REAL).sum(0).numpy()
    assert chisquare(places).pvalue > 0.001


def test_pixels_match_labels_and_both_kinds_are_augmented(tmp_path: Path) -> None:
    real, synthetic = make_real(), make_synthetic(tmp_path)
    pixels = torch.cat([real.images, synthetic.take(torch.arange(GENERATED))[0]])
    plain = Batches(real, Batching(16, shuffle=True), SyntheticMixing(synthetic, 0.5, epoch_size=160))
    for batch in plain.epoch():
        assert torch.equal((batch.images * 255).round(), pixels[batch.labels].float())
    changed = {True: 0, False: 0}
    padded = torch.nn.functional.pad(pixels, (2,) * 4)
    augment = Augment(crop_padding=2, flip=True)
    for batch in Batches(real, Batching(16, shuffle=True, augment=augment), SyntheticMixing(synthetic, 0.5)).epoch():
        for image, label in zip((batch.images * 255).round(), batch.labels.tolist(), strict=True):
            crops = padded[label].unfold(1, 6, 1).unfold(2, 6, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
            variants = torch.cat([crops, crops.flip(-1)]).float()
            assert (variants == image).flatten(1).all(1).any()
            changed[label < REAL] += not torch.equal(image, pixels[label].float())
    assert min(changed.values()) >= 8


def test_an_epoch_is_by_default_as_long_as_the_real_images(tmp_path: Path) -> None:
    assert len(mix(tmp_path, 10, 0.7)) == 3
    assert len(mix(tmp_path, 10, 0.7, drop_last=True)) == 3  # every batch is full
    assert len(mix(tmp_path, 10, 0.7, epoch_size=50_000)) == 5000


@pytest.mark.parametrize("fraction", [0.05, 1.0, 1.5, -0.7, 0.0])
def test_a_fraction_that_leaves_only_one_kind_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UserError, match=rf"data\.synthetic\.fraction={fraction}"):
        mix(tmp_path, 10, fraction)


def test_second_views_of_synthetic_images_are_refused(tmp_path: Path) -> None:
    mixing = SyntheticMixing(make_synthetic(tmp_path, 32), 0.5)
    with pytest.raises(UserError, match=r"data\.augment\.second_view=cutout"):
        Batches(make_real(32), Batching(4, augment=Augment(second_view="cutout")), mixing)


def compose(folder: Path, *options: str, data: str = "cifar10_1m") -> Any:
    return compose_config("train", [f"data={data}", f"paths.data={folder}", "trainer.batch_size=10", *options])


def write_cifar10_1m(folder: Path, count: int = 30) -> None:
    (folder / "cifar10").mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "cifar10" / "1m.npz", image=pixels, label=np.arange(count) % 10)


def test_a_configuration_makes_mixed_batches(tmp_path: Path) -> None:
    write_cifar10_1m(tmp_path)
    cfg = compose(tmp_path, "seed=3")
    synthetic, rest = load_synthetic(cfg.data), make_real(32)
    batches = make_batches(
        typed(cfg, TrainConfig), rest, torch.device("cpu"), training=True, synthetic=synthetic, epoch_size=37
    )
    assert len(batches) == 4
    augment = Augment(crop_padding=4, flip=True)
    batching = Batching(10, augment=augment, shuffle=True, seed=3, memory_format=torch.channels_last)
    by_hand = Batches(rest, batching, SyntheticMixing(synthetic, 0.7, epoch_size=37))
    for got, expected in zip(batches.epoch(1), by_hand.epoch(1), strict=True):
        assert torch.equal(got.images, expected.images)
        assert torch.equal(got.labels, expected.labels)
    validation = make_batches(typed(cfg, TrainConfig), rest, torch.device("cpu"), training=False)
    assert torch.equal(torch.cat([batch.labels for batch in validation.epoch()]), rest.labels)
