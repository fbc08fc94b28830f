"""A step of adversarial training does what the official code does, in its order, and leaves nothing else behind."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import DKL, IKL, KL
from dkl.storage import checkpoint
from dkl.tasks import Progress, TradesTraining
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


def test_the_attack_without_a_gaussian_start_draws_from_the_tasks_noise() -> None:
    model, batch = make_net(), make_batch()
    attack = make_attack(steps=0, sigma=None)
    first, again, other = (make_task(model, attack=attack, seed=seed).perturb(batch, FIRST) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert EPS / 2 < (first - batch.images).abs().max() <= EPS * (1 + 1e-5)


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
