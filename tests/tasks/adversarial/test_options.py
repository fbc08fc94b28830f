"""Options of DM-Improves-AT: smoothed labels, natural images first, BatchNorm's statistics set by the first batch."""

import math

import pytest
import torch
from torch import Tensor, nn

from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import IKL, JSD, KL
from dkl.tasks import AWP, Progress, TradesTraining
from tests.official.oracles import pairwise_ikl
from tests.tasks.common import CLASSES, Spy, make_batch, make_net, make_task


def take_step(task: TradesTraining, batch: Batch, epoch: int = 1, step: int = 0) -> Tensor:
    """A step of SGD at rate 0.1; returns its loss."""
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    with task.step(batch, Progress(epoch, 4, step, 4)) as out:
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    return out.loss.detach()


def soft_label_loss(logits: Tensor, labels: list[int], smoothing: float) -> float:
    """Mean of −Σ q log p in a loop: q is s / C at every class, and 1 − s more at the label."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        normalizer = math.log(sum(math.exp(value) for value in row))
        for column, value in enumerate(row):
            q = smoothing / len(row) + (1 - smoothing if column == label else 0)
            total -= q * (value - normalizer)
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_label_smoothing_is_spread_over_all_classes(smoothing: float) -> None:
    model, batch = make_net().train(), make_batch()
    spy, task = Spy(model), make_task(model, IKL(wmse_weight=3.0, ce_weight=2.0), label_smoothing=smoothing)
    rows = task.prior.table[batch.labels].clone()
    loss = take_step(task, batch)
    adversarial, natural = (call.logits for call in spy.calls[-2:])
    robust = pairwise_ikl(natural, adversarial, rows, 3.0, 2.0).item()
    expected = soft_label_loss(natural, batch.labels.tolist(), smoothing) + robust
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("natural_first", [False, True])
def test_loss_and_prior_know_which_is_natural(natural_first: bool) -> None:
    model, batch = make_net().train(), make_batch()
    spy, task = Spy(model), make_task(model, natural_first=natural_first)
    rows = task.prior.table[batch.labels].clone()
    loss = take_step(task, batch)
    natural, adversarial = spy.calls[-2:] if natural_first else reversed(spy.calls[-2:])
    assert torch.equal(natural.images, batch.images)
    ce = soft_label_loss(natural.logits, batch.labels.tolist(), 0.0)
    robust = pairwise_ikl(natural.logits, adversarial.logits, rows, 3.0, 2.0).item()
    assert loss.item() == pytest.approx(ce + robust, rel=1e-5)
    task.end_epoch()
    means = [(natural.logits / 4).softmax(-1)[batch.labels == label].mean(0) for label in range(CLASSES)]
    torch.testing.assert_close(task.prior.table, torch.stack(means))


def moments(layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance a channel of what ``layer`` makes of ``images``."""
    maps = layer(images).detach().transpose(0, 1).flatten(1)
    return maps.mean(1), maps.var(1)


def copy_of(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer as it is now."""
    twin = nn.Conv2d(1, 5, 3, padding=1)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("natural_first", [False, True])
def test_a_warm_start_sets_the_statistics_to_the_first_batchs_and_moves_on_as_ever(natural_first: bool) -> None:
    model = make_net().train()
    spy, norm = Spy(model), model[1]
    task = make_task(model, KL(), natural_first=natural_first, bn_warm_start=True)
    batches = [make_batch(), make_batch()]
    first = copy_of(model[0])
    take_step(task, batches[0], step=0)
    mean, variance = moments(first, spy.calls[-1].images)  # the last forward's, whichever it is
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == 0.1
    second = copy_of(model[0])
    take_step(task, batches[1], step=1)
    for call in spy.calls[-2:]:
        new_mean, new_variance = moments(second, call.images)
        mean, variance = 0.9 * mean + 0.1 * new_mean, 0.9 * variance + 0.1 * new_variance
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def test_later_steps_are_not_warm() -> None:
    for settings in [{"bn_warm_start": True}, {}]:
        for epoch, step in [(1, 1), (2, 0), (3, 2)]:
            model, batch = make_net().train(), make_batch()
            spy, mean = Spy(model), torch.zeros(5)
            layer = copy_of(model[0])
            take_step(make_task(model, **settings), batch, epoch, step)
            for call in spy.calls[-2:]:
                mean = 0.9 * mean + 0.1 * moments(layer, call.images)[0]
            torch.testing.assert_close(model[1].running_mean, mean)


def test_the_momentum_is_back_when_the_body_of_a_warm_step_raises() -> None:
    model = make_net().train()
    task = make_task(model, bn_warm_start=True)
    with pytest.raises(KeyError, match="from the body"), task.step(make_batch(), Progress(1, 4)):
        raise KeyError("from the body")
    assert model[1].momentum == 0.1


@pytest.mark.parametrize("awp", [None, AWP(start=1)])
def test_gradient_norms_are_measured_and_change_nothing(awp: AWP | None) -> None:
    torch.manual_seed(0)
    plain, measured = make_net().train(), make_net().train()
    measured.load_state_dict(plain.state_dict())
    spy, batch = Spy(measured), make_batch()
    take_step(make_task(plain, IKL(wmse_weight=3.0, ce_weight=2.0), awp=awp), batch)
    task = make_task(measured, IKL(wmse_weight=3.0, ce_weight=2.0), awp=awp, gradient_norms=True)
    rows = task.prior.table[batch.labels].clone()
    with task.step(batch, Progress(1, 4)) as out:
        out.loss.backward()
        torch.optim.SGD(measured.parameters(), lr=0.1).step()
    torch.testing.assert_close(measured.state_dict(), plain.state_dict(), rtol=0, atol=0)
    adversarial, natural = (call.logits for call in spy.calls[-2:])
    ce = 2.0 * (natural.softmax(-1) - adversarial.softmax(-1)).norm(dim=-1).sum()
    gaps = (natural - adversarial)[:, :, None] - (natural - adversarial)[:, None]
    wmse = 3.0 * 2**0.5 * (rows[:, :, None] * rows[:, None] * gaps).sum(-1).norm(dim=-1).sum()
    torch.testing.assert_close(out.sums["ce_gradient"], ce)
    torch.testing.assert_close(out.sums["wmse_gradient"], wmse)


def test_gradient_norms_need_a_loss_of_two_terms() -> None:
    with pytest.raises(UserError, match=r"task\.gradient_norms=true: JSD has no terms to split: .*, or set"):
        make_task(make_net(), JSD(), gradient_norms=True)
