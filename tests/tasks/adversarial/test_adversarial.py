"""A step of adversarial training does what the official code does, in its order, and leaves nothing else behind."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import DKL, IKL, KL
from dkl.storage import checkpoint
from dkl.tasks import Progress, TradesTraining
from tests.official.oracles import pairwise_ikl
from tests.tasks.common import CLASSES, EPS, Spy, SpyLoss, make_attack, make_batch, make_net, make_task

FIRST = Progress(1, 4)


def take_step(task: TradesTraining, batch: Batch, progress: Progress = FIRST) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of one step."""
    task.model.train()
    task.model.zero_grad(set_to_none=True)
    with task.step(batch, progress) as out:
        out.loss.backward()
    gradients = [parameter.grad for parameter in task.model.parameters() if parameter.grad is not None]
    return out.loss.detach(), gradients


def test_forwards_are_one_natural_one_a_step_and_two_in_training() -> None:
    for objective, natural in [(None, 0), (KL(), 1), (IKL(), 1)]:
        for steps in [0, 1, 3, 10]:
            model = make_net()
            spy = Spy(model)
            task = make_task(model, attack=make_attack(steps=steps, objective=objective))
            take_step(task, make_batch())
            attack, training = spy.calls[:-2], spy.calls[-2:]
            assert len(attack) == natural + steps
            assert [call.training for call in spy.calls] == [False] * len(attack) + [True] * 2
            assert [call.differentiated for call in spy.calls] == [False] * len(attack) + [True] * 2
            assert all(len(call.images) == 9 for call in training)


def test_training_sees_the_adversarial_images_and_then_the_natural_ones() -> None:
    model, batch = make_net(), make_batch()
    spy = Spy(model)
    take_step(make_task(model, attack=make_attack(objective=KL())), batch)
    natural_in_attack, *steps, adversarial, natural = spy.calls
    assert torch.equal(natural_in_attack.images, batch.images)
    assert torch.equal(natural.images, batch.images)
    distance = (adversarial.images - batch.images).abs().amax()
    assert distance == pytest.approx(EPS, rel=1e-4)
    noise = steps[0].images - batch.images  # the Gaussian start
    assert 0 < noise.abs().max() < 0.01


def test_the_loss_is_ce_on_natural_images_plus_the_pair_loss_with_the_prior_of_the_labels() -> None:
    model, batch = make_net(), make_batch()
    spy = Spy(model)
    task = make_task(model, IKL(wmse_weight=3.0, ce_weight=2.0))
    task.prior.table.copy_(torch.rand(CLASSES, CLASSES).softmax(-1))
    rows = task.prior.table[batch.labels].clone()
    loss, _ = take_step(task, batch)
    adversarial, natural = (call.logits for call in spy.calls[-2:])
    expected = F.cross_entropy(natural, batch.labels) + pairwise_ikl(natural, adversarial, rows, 3.0, 2.0)
    torch.testing.assert_close(loss, expected)


def test_gradients_are_those_of_the_loss_at_fixed_adversarial_images() -> None:
    model, batch = make_net().double(), make_batch()
    batch = Batch(batch.images.double(), batch.labels)
    other, spy = copy.deepcopy(model), Spy(model)
    _, gradients = take_step(make_task(model), batch)
    other.train()
    adversarial, natural = other(spy.calls[-2].images), other(batch.images)
    rows = torch.full((len(batch.labels), CLASSES), 1 / CLASSES, dtype=torch.float64)
    loss = F.cross_entropy(natural, batch.labels) + pairwise_ikl(natural, adversarial, rows, 3.0, 2.0)
    for got, expected in zip(gradients, torch.autograd.grad(loss, list(other.parameters())), strict=True):
        torch.testing.assert_close(got, expected)


def test_correct_predictions_are_counted() -> None:
    model, batch = make_net(), make_batch(50)
    spy = Spy(model)
    model.train()
    with make_task(model, attack=make_attack(eps=0.3)).step(batch, FIRST) as out:
        pass
    adversarial, natural = (
        sum(int(row.index(max(row)) == label) for row, label in zip(call.logits.tolist(), batch.labels, strict=True))
        for call in spy.calls[-2:]
    )
    assert {name: int(value) for name, value in out.sums.items()} == {
        "natural_correct": natural,
        "adversarial_correct": adversarial,
    }
    assert natural != adversarial


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_prior_is_the_class_mean_of_train_mode_natural_predictions(temperature: float) -> None:
    model = make_net()
    spy, task = Spy(model), make_task(model, prior_temperature=temperature)
    batches = [make_batch(7, classes=3), make_batch(5, classes=3)]  # class 3 is never seen
    sums, counts = [[0.0] * CLASSES for _ in range(CLASSES)], [0] * CLASSES
    for batch in batches:
        take_step(task, batch)
        assert torch.equal(task.prior.table, torch.full((CLASSES, CLASSES), 1 / CLASSES))
        for logits, label in zip(spy.calls[-1].logits, batch.labels.tolist(), strict=True):
            exponentials = [torch.exp(logit / temperature).item() for logit in logits]
            counts[label] += 1
            for column, value in enumerate(exponentials):
                sums[label][column] += value / sum(exponentials)
    task.end_epoch()
    expected = [[value / counts[label] for value in sums[label]] if counts[label] else [0.25] * 4 for label in range(4)]
    torch.testing.assert_close(task.prior.table, torch.tensor(expected))
    assert task.prior.table.std() > 0
    held = task.prior.table.clone()
    take_step(task, batches[0])
    assert torch.equal(task.prior.table, held)


def test_temperature_and_momentum_reach_the_prior_and_nothing_else() -> None:
    batch, start = make_batch(), make_net()

    def run(**settings: float) -> tuple[Tensor, Tensor]:
        task = make_task(copy.deepcopy(start), **settings)
        loss, _ = take_step(task, batch)
        task.end_epoch()
        return loss, task.prior.table

    loss, table = run()
    for settings in ({"prior_temperature": 1.0}, {"prior_momentum": 0.5}):
        other_loss, other_table = run(**settings)
        assert torch.equal(loss, other_loss)
        assert not torch.allclose(table, other_table)
    _, half = run(prior_momentum=0.5)
    torch.testing.assert_close(half, 0.5 * table + 0.5 / CLASSES)


@pytest.mark.parametrize("role", ["loss", "objective"])
@pytest.mark.parametrize("weighting", ["class", "sample", "label", "none"])
def test_a_loss_gets_rows_of_the_prior_or_labels_as_its_weighting_says(role: str, weighting: str) -> None:
    spy, batch = SpyLoss(weighting), make_batch()
    loss = spy if role == "loss" else DKL()
    attack = make_attack(objective=spy if role == "objective" else KL())
    task = make_task(make_net(), loss, attack)
    task.prior.table.copy_(torch.rand(CLASSES, CLASSES))
    rows = torch.stack([task.prior.table[label] for label in batch.labels.tolist()])
    expected = {"class": {"weights": rows}, "label": {"labels": batch.labels}}.get(weighting, {})
    take_step(task, batch)
    assert len(spy.seen) == (1 if role == "loss" else 3)
    for given in spy.seen:
        assert given.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in given.items())


def test_a_sample_weighted_loss_does_not_depend_on_the_prior() -> None:
    batch, start, losses = make_batch(), make_net(), {}
    for name, loss in {"sample": IKL(weighting="sample"), "class": IKL()}.items():
        for skew in (False, True):
            task = make_task(copy.deepcopy(start), loss)
            if skew:
                task.prior.table.copy_(torch.eye(CLASSES))
            losses[name, skew] = take_step(task, batch)[0]
    assert torch.equal(losses["sample", False], losses["sample", True])
    assert not torch.allclose(losses["class", False], losses["class", True])


@pytest.mark.parametrize(("epoch", "radius"), [(1, 1 / 8), (4, 1 / 2), (8, 1.0)])
def test_the_attack_follows_the_epoch(epoch: int, radius: float) -> None:
    # a linear model's cross-entropy between two classes rises fastest along one sign, so each pixel ends at ±eps
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    attack = TrainingAttack(eps="0.05", objective=None)
    task = TradesTraining(model, KL(), attack, num_classes=2)
    spy, batch = Spy(model), make_batch(6, classes=2)
    adversarial = task.perturb(batch, Progress(epoch, 8))
    assert len(spy.calls) == 5
    weight = model[1].weight
    towards = torch.where(batch.labels.view(-1, 1) == 0, weight[1] - weight[0], weight[0] - weight[1])
    expected = batch.images + 0.05 * radius * towards.sign().view_as(batch.images)
    torch.testing.assert_close(adversarial, expected.detach())


def test_the_attack_without_a_gaussian_start_draws_from_the_tasks_noise() -> None:
    model, batch = make_net(), make_batch()
    attack = make_attack(steps=0, sigma=None)
    first, again, other = (make_task(model, attack=attack, seed=seed).perturb(batch, FIRST) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert EPS / 2 < (first - batch.images).abs().max() <= EPS * (1 + 1e-5)


@pytest.mark.parametrize("objective", [None, KL(), IKL()])
def test_batchnorm_moves_by_the_two_training_forwards_only(objective: Any) -> None:
    model, batch = make_net(), make_batch()
    spy = Spy(model)
    mean, variance = torch.zeros(5), torch.ones(5)
    take_step(make_task(model, attack=make_attack(objective=objective)), batch)
    for call in spy.calls[-2:]:
        maps = model[0](call.images).detach().transpose(0, 1).flatten(1)
        mean, variance = 0.9 * mean + 0.1 * maps.mean(1), 0.9 * variance + 0.1 * maps.var(1)
    assert model[1].num_batches_tracked == 2
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)


@pytest.mark.parametrize("raises", [False, True])
def test_modes_and_flags_are_as_they_were(raises: bool) -> None:
    model = make_net().train()
    model[1].eval()  # as in fine-tuning with BatchNorm held
    model[0].bias.requires_grad_(False)

    def look() -> tuple[list[bool], list[bool], list[Tensor]]:
        modes = [module.training for module in model.modules()]
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        return modes, [parameter.requires_grad for parameter in model.parameters()], weights

    def step() -> None:
        with make_task(model).step(make_batch(), FIRST):
            assert look()[:2] == before[:2]
            if raises:
                raise KeyError("in the body")

    before = look()
    if raises:
        with pytest.raises(KeyError, match="in the body"):
            step()
    else:
        step()
    after = look()
    assert after[:2] == before[:2]
    assert all(map(torch.equal, after[2], before[2]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_attack_that_fails_leaves_modes_and_flags() -> None:
    def fail(natural: Tensor, adversarial: Tensor) -> Tensor:
        raise KeyError("in the attack")

    fail.weighting = "none"
    model = make_net().train()
    with (
        pytest.raises(KeyError, match="in the attack"),
        make_task(model, attack=make_attack(objective=fail)).step(make_batch(), FIRST),
    ):
        pass
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_task_that_is_saved_and_loaded_takes_the_same_next_step(tmp_path: Path) -> None:
    attack = make_attack(objective=IKL())
    batches = [make_batch() for _ in range(4)]
    model = make_net()
    task = make_task(model, attack=attack)
    take_step(task, batches[0])
    task.end_epoch()
    take_step(task, batches[1])  # leaves sums of an unfinished epoch and moved noise
    checkpoint.save(tmp_path / "task.pt", {"task": task.state_dict(), "model": model.state_dict()})
    content = checkpoint.read(tmp_path / "task.pt")

    def go_on(task: TradesTraining) -> list[Tensor]:
        loss, gradients = take_step(task, batches[2])
        task.end_epoch()
        return [loss, *gradients, task.prior.table, take_step(task, batches[3])[0]]

    expected = go_on(task)
    resumed = make_task(make_net(), attack=attack, seed=99)
    resumed.model.load_state_dict(content["model"])
    forgetful = make_task(copy.deepcopy(resumed.model), attack=attack, seed=99)
    resumed.load_state_dict(content["task"])
    assert all(map(torch.equal, go_on(resumed), expected))
    assert not all(map(torch.equal, go_on(forgetful), expected))


def test_a_missing_loss_or_attack_says_how_to_fix_it() -> None:
    for loss, attack in [(None, make_attack()), (IKL(), None), (None, None)]:
        with pytest.raises(UserError, match=r"loss=ikl and attack=pgd"):
            TradesTraining(make_net(), loss, attack, num_classes=CLASSES)


def test_impossible_numbers_are_refused() -> None:
    for settings in [{"prior_temperature": 0.0}, {"prior_temperature": -1.0}, {"prior_momentum": 0.0}]:
        with pytest.raises((UserError, ValueError), match=r"temperature|momentum"):
            make_task(make_net(), **settings)


def test_an_attack_of_your_own_is_seeded_by_its_place_and_leaves_no_trace() -> None:
    modes: list[bool] = []

    def noise(
        model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, eps: float, seed: int, size: float
    ) -> Tensor:
        modes.append(model.training or any(weight.requires_grad for weight in model.parameters()))
        return images + size * eps * (2 * torch.rand_like(images) - 1)

    batch = make_batch()

    def images_at(progress: Progress, seed: int = 0) -> Tensor:
        attack = partial(noise, norm="linf", eps="8/255", size=0.5)
        task = TradesTraining(make_net(), KL(), attack, num_classes=CLASSES, seed=seed)
        before = torch.get_rng_state()
        adversarial = task.perturb(batch, progress)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(weight.requires_grad for weight in task.model.parameters())
        assert 0 < (adversarial - batch.images).abs().max() <= 0.5 * 8 / 255 + 1e-6
        return adversarial - batch.images

    first, *others = (
        images_at(FIRST),
        images_at(Progress(1, 4, step=1)),
        images_at(Progress(2, 4)),
        images_at(FIRST, seed=1),
    )
    assert torch.equal(first, images_at(FIRST))
    assert not any(torch.equal(first, other) for other in others)
    assert not any(modes)
    with pytest.raises(UserError, match=r"must take .*: missing a required argument: 'size'"):
        TradesTraining(make_net(), KL(), partial(noise, norm="linf", eps=0.1), num_classes=CLASSES)
    outside = TradesTraining(make_net(), KL(), partial(noise, norm="linf", eps=0.1, size=2), num_classes=CLASSES)
    with pytest.raises(UserError, match=r"more than eps=0.1: project"):
        outside.perturb(make_batch(), FIRST)
