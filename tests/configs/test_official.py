"""recipe=official and attack=official_* are the published settings of the official code, epoch by epoch."""

import math

import pytest
import torch
from torch import nn

from dkl.build import build_task
from dkl.config import compose_config
from dkl.losses import IKL, KL
from dkl.tasks import AdversarialTraining
from dkl.training.schedules import SCHEDULES


def make_task(*overrides: str) -> AdversarialTraining:
    task = build_task(compose_config("train", list(overrides)), nn.Linear(1, 1))
    assert isinstance(task, AdversarialTraining)
    return task


def test_the_optimiser_and_the_length() -> None:
    cfg = compose_config("train", ["recipe=official", "data=cifar100"])
    optimizer, trainer = cfg.optimizer, cfg.trainer
    assert cfg.model.name == "wrn34_10"
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.2, 0.9, False, 5e-4)
    assert (trainer.epochs, trainer.batch_size) == (200, 128)
    assert "mean" not in cfg.model  # inputs in [0, 1], no normalisation


@pytest.mark.parametrize("epoch", [1, 2, 50, 100, 199, 200])
def test_the_rates(epoch: int) -> None:
    cfg = compose_config("train", ["recipe=official", "data=cifar100"])
    o = cfg.optimizer
    lr = o.lr * SCHEDULES[o.schedule.value](epoch, cfg.trainer.epochs, o.warmup_epochs)
    assert lr == pytest.approx(0.1 * (1 + math.cos(math.pi * epoch / 201)), rel=1e-12)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("attack", ["official_ikl", "official_kl"])
def test_the_attack_is_five_steps_of_half_an_eps_that_grows(attack: str, data: str) -> None:
    training = make_task("recipe=official", f"data={data}", f"attack={attack}").attack
    assert (training.norm, training.sigma) == ("linf", 0.001)
    for epoch in (1, 25, 50, 51, 100, 150, 200):
        budget = training.at(epoch, 200)
        assert budget.eps == pytest.approx(8 / 255 * epoch / 200, rel=1e-12)
        assert budget.step_size == pytest.approx(budget.eps / 2, rel=1e-12)
        assert budget.steps == 5


def test_the_objectives() -> None:
    # CIFAR-100: weights 1 and 1, by class. CIFAR-10 raises KL, which has the input gradient of IKL with no wMSE.
    assert make_task("attack=official_ikl").attack.objective == IKL(wmse_weight=1.0, ce_weight=1.0, weighting="class")
    assert make_task("attack=official_kl").attack.objective == KL(weight=1.0)
    assert make_task("recipe=official").attack.objective == IKL(wmse_weight=1.0, ce_weight=1.0)
    natural, adversarial = torch.randn(4, 10).double(), torch.randn(4, 10).double().requires_grad_()
    cross_entropy = IKL(wmse_weight=0.0, ce_weight=1.0, weighting="sample")(natural, adversarial)
    gradients = [torch.autograd.grad(loss, adversarial)[0] for loss in (KL()(natural, adversarial), cross_entropy)]
    torch.testing.assert_close(*gradients)


def test_the_loss_and_the_prior() -> None:
    # the CIFAR-100 row: --alpha 5 --beta 20 --T 4, where --alpha is ce_weight and --beta is wmse_weight; m = 1
    task = make_task("recipe=official", "data=cifar100")
    assert task.loss == IKL(wmse_weight=20.0, ce_weight=5.0, weighting="class")
    assert (task.temperature, task.prior.momentum) == (4.0, 1.0)
    assert task.prior.table.shape == (100, 100)


def test_the_gkl_row_of_the_second_code() -> None:
    # README of v2, CIFAR-100: a4 b20 gamma 0.4
    loss = make_task("loss=gkl").loss
    assert (loss.ce_weight, loss.wmse_weight, loss.gamma) == (4.0, 20.0, 0.4)
