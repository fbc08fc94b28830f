"""PGD-AT is a step on the cross-entropy of adversarial images, which are all that training shows the network."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.losses import IKL, KL
from dkl.tasks import AWP, PGDTraining
from tests.official.baselines import ascended, attacked, descended
from tests.tasks.adversarial.baselines import (
    FIRST,
    assert_close,
    composed_steps,
    cross_entropy,
    double_batch,
    take_step,
)
from tests.tasks.common import EPS, Spy, make_attack, make_batch, make_net


def make_task(model: nn.Module, **settings: Any) -> PGDTraining:
    return PGDTraining(model, make_attack(sigma=None, objective=None), **settings)


def test_there_is_one_forward_a_step_and_one_in_training() -> None:
    for steps in [0, 1, 3]:
        model, batch = make_net(), make_batch()
        spy = Spy(model)
        take_step(PGDTraining(model, make_attack(sigma=None, steps=steps)), batch)
        assert [call.training for call in spy.calls] == [False] * steps + [True]
        assert not any(torch.equal(call.images, batch.images) for call in spy.calls)


def test_batchnorm_moves_by_the_adversarial_images_only() -> None:
    model = make_net()
    spy = Spy(model)
    model.train()
    with make_task(model).step(make_batch(), FIRST):
        pass
    maps = model[0](spy.calls[-1].images).detach().transpose(0, 1).flatten(1)
    assert model[1].num_batches_tracked == 1
    torch.testing.assert_close(model[1].running_mean, 0.1 * maps.mean(1))
    torch.testing.assert_close(model[1].running_var, 0.9 + 0.1 * maps.var(1))


def test_only_an_objective_of_both_logits_forwards_natural_images_and_only_in_the_attack() -> None:
    model, batch = make_net(), make_batch()
    spy = Spy(model)
    take_step(PGDTraining(model, make_attack(objective=KL())), batch)
    assert [call.training for call in spy.calls if torch.equal(call.images, batch.images)] == [False]


def test_the_attack_starts_uniformly_in_the_ball() -> None:
    model, batch = make_net(), make_batch(100)
    spy = Spy(model)
    take_step(make_task(model), batch)
    noise = (spy.calls[0].images - batch.images) / EPS
    assert noise.abs().max() <= 1 + 1e-5
    assert noise.mean().abs() < 0.1
    assert noise.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_a_step_is_that_of_plain_pytorch(gamma: float) -> None:
    model, batch = make_net().double(), double_batch()
    loss = cross_entropy(batch.labels)
    before = [w.detach().clone() for w in model.parameters()]
    task = make_task(model, awp=AWP(gamma=gamma, start=1))
    reference, spy = make_net().double(), Spy(model)
    reference.load_state_dict(model.state_dict())
    got, parameters = take_step(task, batch)
    adversarial = attacked(reference, batch.images, spy.calls[0].images, loss)
    assert_close([spy.calls[-1].images], [adversarial])
    reference.train()
    changes = ascended(reference, lambda net: loss(net(adversarial)), gamma)
    expected = descended([reference], lambda net: loss(net(adversarial)), changes)
    assert_close(parameters, expected)
    assert_close([got], [loss(spy.calls[-1].logits)])
    assert all(not torch.equal(after, old) for after, old in zip(parameters, before, strict=True))


def test_awp_changes_the_step() -> None:
    batch, start = double_batch(), make_net().double().state_dict()

    def step(gamma: float) -> list[Tensor]:
        model = make_net().double()
        model.load_state_dict(start)
        return take_step(make_task(model, awp=AWP(gamma=gamma, start=1)), batch)[1]

    assert not torch.allclose(step(0.0)[0], step(0.05)[0], rtol=1e-4)


def test_labels_are_smoothed_over_all_classes() -> None:
    for smoothing in [0.0, 0.1, 0.5]:
        model, batch = make_net().double(), double_batch()
        spy = Spy(model)
        got, _ = take_step(make_task(model, label_smoothing=smoothing), batch)
        total = 0.0
        for logits, label in zip(spy.calls[-1].logits.tolist(), batch.labels.tolist(), strict=True):
            log_sum = math.log(sum(map(math.exp, logits)))
            for column, logit in enumerate(logits):
                q = smoothing / len(logits) + (1 - smoothing if column == label else 0)
                total += q * (log_sum - logit)
        assert float(got) == pytest.approx(total / len(batch.labels), rel=1e-10)


def test_the_report_counts_adversarial_images_only() -> None:
    model, batch = make_net(), make_batch(50)
    spy = Spy(model)
    model.train()
    with make_task(model).step(batch, FIRST) as out:
        pass
    last = spy.calls[-1].logits.tolist()
    right = sum(row.index(max(row)) == label for row, label in zip(last, batch.labels.tolist(), strict=True))
    assert {name: int(value) for name, value in out.sums.items()} == {"adversarial_correct": right}
    assert out.adversarial_images is not None
    assert torch.equal(out.adversarial_images, spy.calls[-1].images)


def test_the_noise_continues_from_its_saved_state() -> None:
    model, batch = make_net(), make_batch()
    task = make_task(model, seed=3)
    task.perturb(batch, FIRST)
    resumed = make_task(model, seed=4)
    resumed.load_state_dict(task.state_dict())
    assert torch.equal(task.perturb(batch, FIRST), resumed.perturb(batch, FIRST))
    assert not torch.equal(task.perturb(batch, FIRST), make_task(model, seed=4).perturb(batch, FIRST))


def test_mistakes_say_how_to_fix_them() -> None:
    for attack, settings, message in [
        (None, {}, "attack=pgd"),
        ({"objective": None}, {}, "attack=pgd"),
        (make_attack(objective=IKL()), {}, "weighting=sample"),
        (make_attack(), {"label_smoothing": 1.0}, "label_smoothing"),
    ]:
        with pytest.raises(UserError, match=message):
            PGDTraining(make_net(), attack, **settings)


@pytest.mark.parametrize(
    "overrides",
    [["recipe=pgd_at"], ["recipe=pgd_at", "task=pgd_at"], ["task=pgd_at", "recipe=pgd_at", "task.awp.gamma=0.01"]],
)
def test_it_composes_and_trains(overrides: list[str]) -> None:
    steps = list(composed_steps([*overrides, "task.awp.start=1"]))
    for task, reported in steps:
        assert isinstance(task, PGDTraining)
        assert (task.attack.objective, task.attack.sigma) == (None, None)
        assert math.isfinite(reported["loss"])
        assert reported.keys() == {"loss", "adversarial_correct"}
    assert len(steps) == 2
