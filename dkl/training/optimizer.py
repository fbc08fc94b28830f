"""The optimiser of a run, and what its schedule makes of it each epoch."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import SGD, Optimizer

from dkl.config import OptimizerName
from dkl.training.schedules import SCHEDULES, Shape, one_cycle_momentum


def make_optimizer(cfg: DictConfig, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
    """The optimiser of an ``optimizer`` configuration. Not decayed are parameters whose names have a part in
    ``no_decay``, and without ``decay_vectors`` those of one dimension: biases, and the scales of normalisations."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in named:
        spared = any(part in name for part in cfg.no_decay) or not (cfg.decay_vectors or parameter.ndim > 1)
        (plain if spared else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if cfg.name is OptimizerName.sgd:
        return SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov, weight_decay=cfg.weight_decay)
    return create_optimizer_v2(groups, opt=cfg.name.value, lr=cfg.lr, weight_decay=cfg.weight_decay)


def set_schedule(cfg: DictConfig, optimizer: Optimizer, epoch: int, epochs: int) -> float:
    """Set the learning rate of ``epoch``, counted from 1, and the momentum where it cycles; returns the rate."""
    shape = Shape(
        warmup=cfg.warmup_epochs,
        start=None if cfg.warmup_lr is None else cfg.warmup_lr / cfg.lr,
        milestones=tuple(cfg.milestones),
        decay=cfg.decay,
        pct_start=cfg.pct_start,
    )
    lr = cfg.lr * SCHEDULES[cfg.schedule.value](epoch, epochs, shape)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if cfg.schedule.value == "one_cycle":
            group["momentum"] = one_cycle_momentum(epoch, epochs, shape)
    return lr
