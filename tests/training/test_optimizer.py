"""Optimizers take the steps of timm and torch; weight decay spares what it should; mistakes are refused."""

from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from timm.optim import Lamb, Muon, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from dkl.assembly import build_schedule, preflight
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.losses import IKL, KL, WeightedSum
from dkl.tasks import Distillation, RobustDistillation, Term
from dkl.training.optimizer import apply_schedule, make_optimizer, untrained
from dkl.training.schedules import Poly
from tests.tasks.common import make_attack


def make_net() -> nn.Module:
    """A network with parameters of four, two and one dimensions."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).double()


def stepped(model: nn.Module, optimizer: Optimizer) -> list[torch.Tensor]:
    """Return the weights after five steps on a fixed loss."""
    draw = torch.Generator().manual_seed(4)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.rand(6, 1, 4, 4, generator=draw, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    return [weight.detach() for weight in model.parameters()]


def configured(*overrides: str) -> DictConfig:
    return compose_config(
        "train", ["optimizer.lr=0.05", "optimizer.weight_decay=0.3", *overrides, "optimizer.nesterov=false"]
    ).optimizer


def groups(model: nn.Module, vectors: bool) -> list[dict[str, Any]]:
    """The parameter groups of timm, whose vectors are not decayed, or one group."""
    if not vectors:
        return param_groups_weight_decay(model, 0.3)
    return [{"params": list(model.parameters()), "weight_decay": 0.3}]


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("name", ["lamb", "adamw", "sgd", "adam", "rmsprop", "muon", "torch.optim.NAdam"])
def test_an_optimizer_takes_the_steps_of_its_library(name: str, vectors: bool) -> None:
    make = {
        "lamb": lambda groups: Lamb(groups, lr=0.05),
        "adamw": lambda groups: AdamW(groups, lr=0.05),
        "sgd": lambda groups: SGD(groups, lr=0.05, momentum=0.9),
        "adam": lambda groups: Adam(groups, lr=0.05),
        "rmsprop": lambda groups: RMSprop(groups, lr=0.05, momentum=0.9, alpha=0.9),
        "muon": lambda groups: Muon(groups, lr=0.05, momentum=0.9),
        "torch.optim.NAdam": lambda groups: NAdam(groups, lr=0.05, betas=(0.8, 0.9)),
    }[name]
    model, other = make_net(), make_net()
    chosen = [f"optimizer.name={name}"]
    if "." in name:
        chosen = [f"optimizer._target_={name}", "optimizer.arguments.betas=[0.8,0.9]"]
    cfg = configured(*chosen, "optimizer.momentum=0.9", f"optimizer.decay_vectors={vectors}")
    ours = stepped(model, make_optimizer(cfg, model.named_parameters()))
    theirs = stepped(other, make(groups(other, vectors)))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    unlike = make_net()
    others = stepped(unlike, make(groups(unlike, not vectors)))
    assert max((one - two).abs().max() for one, two in zip(ours, others, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("overrides", "spared"),
    [
        ([], set()),
        (["optimizer.decay_vectors=false"], {"0.bias", "2.weight", "2.bias", "4.bias"}),
        (["optimizer.no_decay=[bias]"], {"0.bias", "2.bias", "4.bias"}),
        (
            ["optimizer.no_decay=[4.weight]", "optimizer.decay_vectors=false"],
            {"0.bias", "2.weight", "2.bias", "4.weight", "4.bias"},
        ),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "lamb"])
def test_what_is_not_decayed(name: str, overrides: list[str], spared: set[str]) -> None:
    model = make_net()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    optimizer = make_optimizer(configured(f"optimizer.name={name}", *overrides), model.named_parameters())
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {key: 0.0 if key in spared else 0.3 for key in names.values()}


def test_faster_parts_have_their_multiple_of_the_rate() -> None:
    model = make_net()
    cfg = configured("optimizer.faster=['4.']", "optimizer.faster_by=10", "optimizer.no_decay=[bias]")
    optimizer = make_optimizer(cfg, model.named_parameters())
    apply_schedule(Poly(power=1.0), optimizer, lr=0.1, epoch=3, epochs=4)  # half of the steps are done
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert found == {
        name: (pytest.approx(0.5 if name.startswith("4.") else 0.05), 0.0 if name.endswith("bias") else 0.3)
        for name in names.values()
    }


def test_layer_decay_leaves_no_parameter_of_the_task_untrained() -> None:
    model, adapter = make_net(), nn.Linear(2, 2)
    named = [*model.named_parameters(), *adapter.named_parameters("adapter")]
    optimizer = make_optimizer(configured("optimizer.name=adamw", "optimizer.layer_decay=0.5"), named, model)
    apply_schedule(Poly(), optimizer, lr=0.1, epoch=1, epochs=4)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates.keys() == {id(parameter) for _, parameter in named}
    assert {rates[id(parameter)] for parameter in adapter.parameters()} == {0.1}


def test_a_loss_inside_others_is_named_if_nothing_trains_it() -> None:
    loss = nn.Linear(1, 1)
    loss.weighting = "none"  # type: ignore[assignment]
    loss.forward = lambda natural, adversarial: natural.mean()  # type: ignore[method-assign]
    several = {"ikl": {"loss": IKL()}, "own": {"loss": loss}}
    task = Distillation(make_net(), make_net(), WeightedSum(several), num_classes=3)
    assert untrained(task) == ["loss.own.weight", "loss.own.bias"]
    attack = make_attack(objective=KL())
    terms = {key: Term(target="teacher.natural", student="natural") for key in ("one", "two")}
    robust = RobustDistillation(make_net(), attack, terms, num_classes=3, teacher=make_net(), loss=loss)
    assert untrained(robust) == ["losses.one.weight", "losses.one.bias"]


def test_the_strong_recipes_rates_are_timms_over_its_300_epochs() -> None:
    cfg = compose_config("train", ["data=imagenet", "recipe=kd_strong", "task.teacher.name=small_cnn"])
    assert (cfg.optimizer.lr, cfg.schedule.warmup_epochs, cfg.schedule.warmup_lr) == (5e-3, 5, 1e-6)
    assert cfg.trainer.epochs == 300
    ours, theirs = (make_optimizer(cfg.optimizer, make_net().named_parameters()) for _ in range(2))
    schedule = CosineLRScheduler(theirs, t_initial=300, lr_min=0, warmup_t=5, warmup_lr_init=1e-6, t_in_epochs=True)
    rates = []
    for epoch in range(1, 301):
        schedule.step(epoch - 1)  # timm counts from 0
        rates.append(apply_schedule(build_schedule(cfg.schedule), ours, lr=cfg.optimizer.lr, epoch=epoch, epochs=300))
        expected = [group["lr"] for group in theirs.param_groups]
        assert [group["lr"] for group in ours.param_groups] == pytest.approx(expected, rel=1e-12)
        assert rates[-1] == ours.param_groups[0]["lr"]
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == rates[5] == pytest.approx(5e-3, rel=1e-3)
    assert 1.3e-7 < rates[-1] < 1.4e-7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.warmup_lr=0"], r"schedule\.warmup_lr=0 must be above 0"),
        (["schedule.warmup_lr=0.2"], r"at most optimizer\.lr=0\.1; null starts at"),
        (["schedule.warmup_lr=nan"], r"warmup_lr=nan"),
        (
            ["optimizer.name=adam", "optimizer.arguments.beta=[0.9,0.9]"],
            r"name=adam.*'beta'.*NAME, betas, eps",
        ),
        (["optimizer.name=adam", "optimizer.arguments.betas=[0.9,2]"], r"name=adam: Invalid beta parameter"),
        (["optimizer._target_=torch.optim.Nope"], r"_target_=torch.optim.Nope cannot be imported.*PYTHONPATH"),
        (["optimizer._target_=torch.nn.Linear"], r"_target_=torch.nn.Linear is no torch.optim.Optimizer"),
        (["optimizer._target_=torch.optim.LBFGS"], r"needs a closure"),
        (["optimizer._target_=torch.optim.Rprop"], r"weight_decay.*or 0 for none.*etas, step_sizes"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], r"needs momentum"),
        (
            ["schedule=one_cycle", "optimizer.name=adamw"],
            r"OneCycle changes the momentum of sgd, not of optimizer\.name=adamw: set optimizer\.name=sgd",
        ),
    ],
)
def test_mistakes_are_refused_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preflight(compose_config("train", ["optimizer.lr=0.1", *overrides]))
