"""recipe=official and attack=official_* are the published settings of the official code, epoch by epoch."""

import math

import pytest
import torch
from torch import nn

from dkl.assembly import build_averaging, build_schedule, build_task, preflight
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.losses import IKL, KL
from dkl.tasks import AWP, TradesTraining
from dkl.training.optimizer import make_optimizer


def make_task(*overrides: str) -> TradesTraining:
    task = build_task(compose_config("train", list(overrides)).task, nn.Linear(1, 1))
    assert isinstance(task, TradesTraining)
    return task


def test_the_optimizer_and_the_length() -> None:
    cfg = compose_config("train", ["recipe=official", "data=cifar100"])
    optimizer, trainer = cfg.optimizer, cfg.trainer
    assert cfg.model.name == "wrn34_10"
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.2, 0.9, False, 5e-4)
    assert (trainer.epochs, trainer.batch_size, trainer.batch_norm_share) == (200, 128, 4)  # 32 images per GPU
    assert "mean" not in cfg.model  # inputs in [0, 1], no normalization


@pytest.mark.parametrize("epoch", [1, 2, 50, 100, 199, 200])
def test_the_rates(epoch: int) -> None:
    cfg = compose_config("train", ["recipe=official", "data=cifar100"])
    lr = cfg.optimizer.lr * build_schedule(cfg.schedule).lr_factor(epoch, cfg.trainer.epochs)
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


def test_weights_are_perturbed_and_averaged() -> None:
    for recipe in ("official", "trades_awp"):
        assert make_task(f"recipe={recipe}", "data=cifar100").awp == AWP(gamma=0.005, start=10)
        rule = build_averaging(compose_config("train", [f"recipe={recipe}"]).averaging)
        assert (rule.per, rule.decay, rule.start, rule.buffers) == ("epoch", 0.9, 0.0, "average")
    assert make_task().awp.gamma == 0


def test_the_trades_baseline() -> None:
    # --beta 9 --lr 0.2, KL attack, no partial batch, lr = 0.2·½(1 + cos(π(e − 1)/E))
    cfg = compose_config("train", ["recipe=trades_awp", "data=cifar100"])
    task = make_task("recipe=trades_awp", "data=cifar100")
    assert (task.loss, task.attack.objective) == (KL(weight=9.0), KL(weight=1.0))
    assert cfg.trainer.drop_last
    schedule = build_schedule(cfg.schedule)
    rates = [cfg.optimizer.lr * schedule.lr_factor(epoch, 200) for epoch in (1, 101)]
    assert rates == pytest.approx([0.2, 0.1])


def test_the_recipe_with_synthetic_images() -> None:
    cfg = compose_config("train", ["recipe=dm_50m", "data=cifar100_50m", "loss=kl", "loss.weight=5"])
    task = make_task("recipe=dm_50m", "data=cifar100_50m", "loss=kl", "loss.weight=5")
    assert (cfg.trainer.epochs, cfg.trainer.batch_size, cfg.data.synthetic.fraction) == (1600, 2048, 0.8)
    assert (task.label_smoothing, task.natural_first, task.bn_warm_start, task.awp.gamma) == (0.1, True, True, 0.0)
    budget = task.attack.at(1, 1600)
    assert (budget.steps, task.attack.sigma, task.attack.batch_norm) == (10, None, "batch")
    assert (budget.eps, budget.step_size) == pytest.approx((8 / 255, 2 / 255))
    rule = build_averaging(cfg.averaging)
    assert (rule.per, rule.decay, rule.start, rule.ramp, rule.buffers) == ("step", 0.995, 0.025, True, "copy")
    selection = cfg.selection
    assert (selection.holdout, selection.balanced, selection.every) == (1024, False, 1)
    assert selection.attack == "cw-40"
    assert (cfg.evaluation.weights, cfg.evaluation.batch_size, cfg.evaluation.seed) == ("best", 128, 1)
    assert list(cfg.model.mean) == [0.5071, 0.4865, 0.4409]
    network = nn.ModuleDict({"conv": nn.Linear(1, 1), "batchnorm_0": nn.BatchNorm1d(1)})
    groups = make_optimizer(cfg.optimizer, network.named_parameters()).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 5e-4), (2, 0.0)]


def test_a_budget_of_the_paper_holds_a_recipe_to_what_it_builds_on() -> None:
    with pytest.raises(UserError, match=r"selection\.holdout"):
        preflight(
            compose_config("train", ["recipe=dm_20m", "data=cifar10_20m", "budget=paper", "selection.holdout=10"])
        )


def test_the_loss_and_the_prior() -> None:
    # the CIFAR-100 row: --alpha 5 --beta 20 --T 4, where --alpha is ce_weight and --beta is wmse_weight; m = 1
    task = make_task("recipe=official", "data=cifar100")
    assert task.loss == IKL(wmse_weight=20.0, ce_weight=5.0, weighting="class")
    assert (task.prior_temperature, task.prior.prior_momentum) == (4.0, 1.0)
    assert task.prior.table.shape == (100, 100)


def test_the_gkl_row_of_the_second_code() -> None:
    # README of v2, CIFAR-100: a4 b20 gamma 0.4
    loss = make_task("loss=gkl").loss
    assert (loss.ce_weight, loss.wmse_weight, loss.gamma) == (4.0, 20.0, 0.4)
