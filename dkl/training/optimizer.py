"""The optimiser of a run, and what its schedule makes of it each epoch."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import SGD, Optimizer

from dkl.training.schedules import SCHEDULES, Shape, one_cycle_momentum


def make_optimizer(cfg: DictConfig, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
    """SGD of an ``optimizer`` configuration; parameters whose names have a part in ``no_decay`` are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in named:
        (plain if any(part in name for part in cfg.no_decay) else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return SGD(
        [group for group in groups if group["params"]],
        lr=cfg.lr,
        momentum=cfg.momentum,
        nesterov=cfg.nesterov,
        weight_decay=cfg.weight_decay,
    )


def set_schedule(cfg: DictConfig, optimizer: Optimizer, epoch: int, epochs: int) -> float:
    """Set the learning rate of ``epoch``, counted from 1, and the momentum where it cycles; returns the rate."""
    shape = Shape(warmup=cfg.warmup_epochs, milestones=tuple(cfg.milestones), decay=cfg.decay, pct_start=cfg.pct_start)
    lr = cfg.lr * SCHEDULES[cfg.schedule.value](epoch, epochs, shape)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if cfg.schedule.value == "one_cycle":
            group["momentum"] = one_cycle_momentum(epoch, epochs, shape)
    return lr
