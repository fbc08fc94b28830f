"""Recipes of the baselines are those of their authors' scripts: rates by epoch, attacks, decay, selection."""

import pytest
import torch
from torch import nn

from dkl.assembly import build_schedule, build_task, preflight
from dkl.config import compose_config
from dkl.losses import KL
from dkl.tasks import LBGAT, MART, PGDTraining, TradesTraining
from dkl.tasks.adversarial import AdversarialTraining
from dkl.training.optimizer import apply_schedule, make_optimizer

RATES = {  # the epochs, from 1, around each change of the rate
    "pgd_at": {1: 0.1, 100: 0.1, 101: 0.01, 150: 0.01, 151: 0.001, 200: 0.001},
    "trades": {1: 0.1, 74: 0.1, 75: 0.01, 89: 0.01, 90: 0.001, 99: 0.001, 100: 0.0001},
    "awp": {1: 0.1, 99: 0.1, 100: 0.01, 149: 0.01, 150: 0.001, 200: 0.001},
    "mart": {1: 0.1, 74: 0.1, 75: 0.01, 76: 0.01},
    "lbgat": {1: 0.05, 2: 0.1, 75: 0.1, 76: 0.01, 90: 0.01, 91: 0.001, 100: 0.001},
}
DECAY = {"pgd_at": 5e-4, "trades": 2e-4, "awp": 5e-4, "mart": 2e-4, "lbgat": 2e-4}
TASKS = {
    "pgd_at": PGDTraining,
    "trades": TradesTraining,
    "awp": TradesTraining,
    "mart": MART,
    "lbgat": LBGAT,
}


@pytest.mark.parametrize("recipe", RATES)
def test_the_optimizer_and_the_rate_of_every_epoch(recipe: str) -> None:
    cfg = compose_config("train", [f"recipe={recipe}", "data=cifar10"])
    optimizer = make_optimizer(cfg.optimizer, [("w", nn.Parameter(torch.ones(1)))])
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, False, DECAY[recipe])
    network = "wrn34_20" if recipe == "pgd_at" else "wrn34_10"
    assert (cfg.model.name, cfg.trainer.epochs, cfg.trainer.batch_size) == (network, max(RATES[recipe]), 128)
    for epoch, rate in RATES[recipe].items():
        assert apply_schedule(
            build_schedule(cfg.schedule), optimizer, lr=cfg.optimizer.lr, epoch=epoch, epochs=cfg.trainer.epochs
        ) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("recipe", RATES)
def test_the_attack_is_ten_steps_at_a_fixed_eps(recipe: str) -> None:
    cfg = compose_config("train", [f"recipe={recipe}", "data=cifar10", "budget=paper"])
    preflight(cfg)
    task = build_task(cfg.task, nn.Linear(1, 1))
    assert type(task) is TASKS[recipe]
    assert isinstance(task, AdversarialTraining)
    eps, step = (8 / 255, 2 / 255) if recipe in ("pgd_at", "awp") else (0.031, 0.007)
    for epoch in (1, cfg.trainer.epochs):
        budget = task.attack.at(epoch, cfg.trainer.epochs)
        assert (budget.eps, budget.step_size) == (pytest.approx(eps, rel=1e-12), pytest.approx(step, rel=1e-12))
        assert budget.steps == 10
    assert task.attack.objective == (None if recipe in ("pgd_at", "mart") else KL())
    assert task.attack.sigma == (None if recipe == "pgd_at" else 0.001)
    assert task.attack.batch_norm == ("batch" if recipe == "pgd_at" else "running")
    assert (task.awp.gamma, task.awp.start) == (0.005 if recipe == "awp" else 0.0, 10)


def test_the_pair_losses_are_kl_at_six() -> None:
    for recipe in ("trades", "awp"):
        task = build_task(compose_config("train", [f"recipe={recipe}"]).task, nn.Linear(1, 1))
        assert isinstance(task, TradesTraining)
        assert task.loss == KL(weight=6.0)


def test_pgd_at_keeps_the_best_epoch_of_held_out_images() -> None:
    cfg = compose_config("train", ["recipe=pgd_at", "data=cifar10"])
    selection = cfg.selection
    assert (selection.holdout, selection.every, selection.attack, selection.eps) == (1000, 1, "pgd-10", "8/255")
    assert cfg.evaluation.weights == "best"


@pytest.mark.parametrize("task", ["pgd_at", "mart", "lbgat"])
def test_recipe_and_task_go_in_any_order_and_with_other_recipes(task: str) -> None:
    one = compose_config("train", [f"recipe={task}"])
    assert one == compose_config("train", [f"recipe={task}", f"task={task}"])
    assert one == compose_config("train", [f"task={task}", f"recipe={task}"])
    other = compose_config("train", [f"task={task}", "recipe=official", "attack=official_kl"])
    preflight(other)
    assert other.task._target_ == one.task._target_
    built = build_task(other.task, nn.Linear(1, 1))
    assert isinstance(built, AdversarialTraining)
    assert built.awp.gamma == 0.005
    assert built.attack.schedule == "official"
    assert built.attack.objective == (KL() if task == "lbgat" else None)
