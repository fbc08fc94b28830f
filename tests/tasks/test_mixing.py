"""Mixed images and labels are what a mix by hand gives; the binary cross-entropy is its definition; draws are fixed."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import DIST, DKD, GKL, IKL, KD
from dkl.tasks import Classification, Distillation, Progress
from dkl.tasks.classification import ImageMixing, label_loss, likeliest
from tests.tasks.common import CLASSES, Spy, SpyLoss, make_batch, make_net

SAMPLE = IKL(weighting="sample")


def levels(count: int, size: int = 8) -> Batch:
    """Image i is all of the value 2^i, so that a mix of two tells which and how much; labels in turn."""
    values = 2.0 ** torch.arange(count, dtype=torch.float64)
    return Batch(values[:, None, None, None].expand(-1, 1, size, size).clone(), torch.arange(count) % CLASSES)


def mixing(**settings: Any) -> ImageMixing:
    return ImageMixing(**{"num_classes": CLASSES, **settings})


def shares(images: Tensor) -> Tensor:
    """How much of each of ``levels(len(images))`` own image is in it, the rest being the i-th from the end: [B]."""
    own = levels(len(images)).images[:, 0, 0, 0]
    other = own.flip(0)
    return (images.mean((1, 2, 3)) - other) / (own - other)


def check_labels(images: Tensor, targets: Tensor) -> None:
    """Each row is the image's share of its own label and the rest of its partner's; all have one share."""
    lam = shares(images)
    assert lam.max() - lam.min() < 1e-9
    for place in range(len(images)):
        expected = [0.0] * CLASSES
        expected[place % CLASSES] += lam[place].item()
        expected[(len(images) - 1 - place) % CLASSES] += 1 - lam[place].item()
        assert targets[place].tolist() == pytest.approx(expected, abs=1e-6)


def test_mixup_is_a_mean_of_two_images_and_their_labels() -> None:
    batch = levels(6)
    for step in range(5):
        images, targets = mixing(mixup=0.5)(batch, Progress(1, 1, step))
        assert images.flatten(1).std(1).max() < 1e-9  # every pixel is mixed by the same ratio
        check_labels(images, targets)
    assert torch.equal(batch.images, levels(6).images)  # the batch is unchanged


def test_cutmix_pastes_a_box_of_the_partners_pixels() -> None:
    seen = set()
    for step in range(12):
        images, targets = mixing(cutmix=1.0)(levels(6), Progress(1, 1, step))
        own = levels(6).images
        pasted = images != own
        assert torch.equal(images, torch.where(pasted, own.flip(0), own))
        assert (pasted == pasted[:1]).all()
        rows, columns = pasted[0, 0].any(1), pasted[0, 0].any(0)
        assert torch.equal(pasted[0, 0], rows[:, None] & columns)
        assert all(side.diff().count_nonzero() <= 2 for side in (rows.int(), columns.int()))  # one box
        check_labels(images, targets)
        seen.add(int(pasted[0].sum()))
    assert len(seen) > 4


def test_chance_decides_between_them_where_both_are_on() -> None:
    kinds = [
        bool(mixing(mixup=1.0, cutmix=1.0)(levels(2), Progress(1, 1, step))[0][0].unique().numel() == 1)
        for step in range(100)
    ]
    assert 30 < sum(kinds) < 70  # a box may also be empty or all


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    drawn = [shares(mixing(mixup=alpha)(levels(2), Progress(1, 1, step))[0])[0].item() for step in range(400)]
    assert kstest(np.clip(drawn, 0, 1), "beta", args=(alpha, alpha)).pvalue > 0.01


def test_a_draw_follows_from_seed_epoch_step_and_place() -> None:
    def drawn(seed: int, epoch: int, step: int, first: int) -> float:
        batch = levels(4)._replace(first=first, total=8)
        return shares(mixing(mixup=1.0, seed=seed)(batch, Progress(epoch, 9, step, 9))[0])[0].item()

    places = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 4)]
    first = [drawn(*place) for place in places]
    torch.manual_seed(9)
    np.random.seed(9)
    random.seed(9)
    assert [drawn(*place) for place in reversed(places)] == first[::-1]
    assert len(set(first)) == len(places)


def test_the_global_generators_are_left_as_they_were() -> None:
    batch = make_batch(8)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    mixing(mixup=0.1, cutmix=1.0)(batch, Progress(1, 1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


@pytest.mark.parametrize("count", [1, 5])
def test_the_last_of_an_odd_number_stays_as_it_was(count: int) -> None:
    batch = levels(count)
    images, targets = mixing(mixup=1.0)(batch, Progress(1, 1))
    assert torch.equal(images[-1], batch.images[-1])
    assert targets[-1].tolist() == [float(label == batch.labels[-1]) for label in range(CLASSES)]
    even, labels = mixing(mixup=1.0)(Batch(batch.images[:-1], batch.labels[:-1]), Progress(1, 1))
    assert torch.equal(images[:-1], even)
    assert torch.equal(targets[:-1], labels)


def test_without_mixing_a_batch_is_what_it_was() -> None:
    batch = make_batch()
    images, labels = mixing()(batch, Progress(1, 1))
    assert images is batch.images
    assert labels is batch.labels


def binary(logits: Tensor, targets: Tensor) -> float:
    """−mean of y log σ(z) + (1 − y) log(1 − σ(z)) over images and classes."""
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        total -= y * math.log(1 / (1 + math.exp(-z))) + (1 - y) * math.log(1 / (1 + math.exp(z)))
    return total / logits.numel()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_binary_cross_entropy_is_its_definition(smoothing: float) -> None:
    logits, labels = torch.randn(6, CLASSES, dtype=torch.float64), torch.arange(6) % CLASSES
    targets = torch.full((6, CLASSES), smoothing / CLASSES, dtype=torch.float64)
    targets[torch.arange(6), labels] += 1 - smoothing
    got = label_loss(logits, labels, binary=True, smoothing=smoothing)
    assert got.item() == pytest.approx(binary(logits, targets), rel=1e-12)


def test_cross_entropies_of_mixed_labels_are_their_definitions() -> None:
    logits, targets = torch.randn(6, CLASSES, dtype=torch.float64), torch.rand(6, CLASSES, dtype=torch.float64)
    targets /= targets.sum(1, keepdim=True)
    plain = sum(
        y * (math.log(sum(map(math.exp, row))) - z)
        for row, shares in zip(logits.tolist(), targets.tolist(), strict=True)
        for z, y in zip(row, shares, strict=True)
    )
    assert label_loss(logits, targets).item() == pytest.approx(plain / 6, rel=1e-12)
    assert label_loss(logits, targets, binary=True).item() == pytest.approx(binary(logits, targets), rel=1e-12)
    assert likeliest(targets).tolist() == [row.index(max(row)) for row in targets.tolist()]


@pytest.mark.parametrize("bce", [True, False])
def test_classification_and_distillation_take_the_mixed_labels(bce: bool) -> None:
    batch, progress = make_batch(7), Progress(2, 3, 1, 4)
    images, targets = mixing(mixup=0.4, cutmix=1.0, seed=5)(batch, progress)
    settings: dict[str, Any] = {"num_classes": CLASSES, "bce": bce, "mixup": 0.4, "cutmix": 1.0, "seed": 5}
    student, teacher = make_net(), make_net()
    plain = Classification(student, **settings)
    taught = Distillation(student, teacher, KD(weight=0.5), ce_weight=0.25, warmup_epochs=0, **settings)
    seen = Spy(student), Spy(teacher)
    with plain.step(batch, progress) as first, taught.step(batch, progress) as second:
        pass
    (one, two), (theirs,) = (spy.calls for spy in seen)
    assert all(torch.equal(call.images, images) for call in (one, two, theirs))
    double = one.logits.double(), targets.double()
    expected = binary(*double) if bce else -(double[0].log_softmax(1) * double[1]).sum(1).mean().item()
    assert first.loss.item() == pytest.approx(expected, rel=1e-5)
    distance = KD(weight=0.5)(theirs.logits, two.logits).item()
    assert second.loss.item() == pytest.approx(0.25 * expected + distance, rel=1e-5)
    assert first.sums["natural_correct"] == (one.logits.argmax(1) == targets.argmax(1)).sum()


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
def test_alphas_that_cannot_be_drawn_from_are_refused(setting: str) -> None:
    assert np.isnan(np.random.RandomState(0).beta(5e-324, 5e-324))  # what timm would draw
    with pytest.raises(UserError, match=rf"task\.{setting}=1e-300 .*at least 1e-6, or 0"):
        mixing(**{setting: 1e-300})
    mixing(**{setting: 1e-6})(levels(2), Progress(1, 1))


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
@pytest.mark.parametrize("loss", [IKL(), GKL()], ids=["IKL", "GKL"])
def test_losses_with_a_prior_are_refused(loss: Any, setting: str) -> None:
    with pytest.raises(
        UserError, match=rf"mix classes, but {type(loss).__name__} .*loss\.weighting=sample, .*both to 0"
    ):
        Distillation(make_net(), make_net(), loss, num_classes=CLASSES, **{setting: 0.1})


@pytest.mark.parametrize("loss", [KD(), DIST(), DKD(), SAMPLE], ids=["KD", "DIST", "DKD", "IKL"])
def test_losses_without_a_prior_train_on_mixed_images(loss: Any) -> None:
    task = Distillation(make_net(), make_net(), loss, num_classes=CLASSES, mixup=0.1, cutmix=1.0, bce=True)
    with task.step(make_batch(), Progress(1, 1)) as out:
        out.loss.backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_a_loss_that_takes_labels_gets_the_likeliest_of_each_mix() -> None:
    loss, batch = SpyLoss("label"), make_batch(8)
    task = Distillation(make_net(), make_net(), loss, num_classes=CLASSES, mixup=1.0)
    for step in range(8):  # in some of which the partner counts more
        _, targets = mixing(mixup=1.0)(batch, Progress(1, 1, step))
        with task.step(batch, Progress(1, 1, step)):
            assert torch.equal(loss.seen[-1]["labels"], targets.argmax(1))
    assert any(torch.equal(seen["labels"], batch.labels.flip(0)) for seen in loss.seen)
    assert any(torch.equal(seen["labels"], batch.labels) for seen in loss.seen)


def test_impossible_settings_are_refused() -> None:
    for setting in ["mixup", "cutmix"]:
        for value in [-0.1, math.inf, math.nan]:
            with pytest.raises(UserError, match=rf"task\.{setting}={value} must be a number from 0 to"):
                Classification(make_net(), num_classes=CLASSES, **{setting: value})
