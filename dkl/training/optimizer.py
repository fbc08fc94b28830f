"""The optimizer of a run, and its learning rate and momentum in each epoch."""

from collections.abc import Iterable
from typing import Any

from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import SGD, Optimizer

from dkl.config import OptimizerConfig, OptimizerName
from dkl.training.schedules import Schedule


def make_optimizer(config: OptimizerConfig, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
    """Make the optimizer of ``config`` for the ``named`` parameters.

    Weight decay spares parameters whose name contains an entry of ``no_decay``, and without ``decay_vectors`` all
    one-dimensional parameters: biases and the scales of normalization layers. The rate of parameters whose name starts
    with an entry of ``faster`` is ``faster_by`` times the others'; their groups have it as ``lr_scale``, as in timm.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        spared = any(part in name for part in config.no_decay) or not (config.decay_vectors or parameter.ndim > 1)
        members.setdefault((name.startswith(tuple(config.faster)), spared), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters}
        | ({"weight_decay": 0.0} if spared else {})
        | ({"lr_scale": config.faster_by} if faster else {})
        for (faster, spared), parameters in sorted(members.items(), key=lambda item: item[0])
    ]
    if config.name is OptimizerName.sgd:
        return SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    return create_optimizer_v2(groups, opt=config.name.value, lr=config.lr, weight_decay=config.weight_decay)


def apply_schedule(schedule: Schedule, optimizer: Optimizer, *, lr: float, epoch: int, epochs: int) -> float:
    """Set the rate of ``epoch``, counted from 1, to its share of the peak ``lr``; returns it.

    The momentum is set too if the schedule changes it. A schedule per step gets the step and the number of all steps.
    Groups with an ``lr_scale`` have the rate times that.
    """
    rate, momentum = lr * schedule.lr_factor(epoch, epochs), schedule.momentum(epoch, epochs)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if momentum is not None:
            group["momentum"] = momentum
    return rate
