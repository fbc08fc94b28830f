"""The optimizer of a run, and its learning rate and momentum in each epoch."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class, param_groups_layer_decay
from torch import nn
from torch.optim import SGD, Optimizer

from dkl.config.schema import OptimizerConfig, OptimizerName
from dkl.errors import UserError, first_line
from dkl.losses import WeightedSum
from dkl.tasks import Task
from dkl.training.schedules import Schedule


def make_optimizer(
    config: OptimizerConfig, named: Iterable[tuple[str, nn.Parameter]], model: nn.Module | None = None
) -> Optimizer:
    """Make the optimizer of ``config`` for the ``named`` parameters.

    Weight decay spares parameters whose name contains an entry of ``no_decay``, and without ``decay_vectors`` all
    one-dimensional parameters: biases and the scales of normalization layers. The rate of parameters whose name starts
    with an entry of ``faster`` is ``faster_by`` times the others'; their groups have it as ``lr_scale``, as in timm.
    ``layer_decay`` needs ``model``; parameters of the task that are not the model's then have the full rate. Raises
    UserError if the optimizer does not take its arguments.
    """
    groups: list[dict[str, Any]] = []
    if config.layer_decay is not None and model is not None:
        groups, layers = _layer_groups(config, model), {id(parameter) for parameter in model.parameters()}
        named = [(name, parameter) for name, parameter in named if id(parameter) not in layers]
    groups += _groups(config, named)
    kind = _class(config)
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    known = inspect.signature(kind).parameters
    if not config._target_:
        settings["momentum"] = config.momentum
    elif "weight_decay" not in known and not config.weight_decay:
        del settings["weight_decay"]
    try:
        if config._target_:
            return kind(groups, **settings, **config.arguments)
        if config.name is OptimizerName.sgd:
            return SGD(groups, nesterov=config.nesterov, **settings, **config.arguments)
        return create_optimizer_v2(groups, opt=config.name.value, **settings, **config.arguments)
    except (TypeError, ValueError) as error:
        own = [name for name in known if name not in ("params", *settings)]
        raise UserError(
            f"{config.title}: {first_line(error)}; it takes optimizer.lr, optimizer.weight_decay (or 0 for none) and, "
            f"as optimizer.arguments.NAME, {', '.join(own) or 'no others'}"
        ) from None


def _class(config: OptimizerConfig) -> type[Optimizer]:
    """The class of the optimizer. Raises UserError if it cannot be imported, or if the loop cannot call it."""
    path = config._target_
    if not path:
        return SGD if config.name is OptimizerName.sgd else get_optimizer_class(config.name.value, bind_defaults=False)
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"{config.title} cannot be imported ({first_line(error)}): check it and PYTHONPATH") from None
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise UserError(f"{config.title} is no torch.optim.Optimizer: name a class that is")
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(f"{config.title} needs a closure in each step, which training does not give: choose another")
    return kind


def untrained(task: Task) -> list[str]:
    """Return the names of parameters of ``task`` that require gradients, but that no optimizer trains."""
    parts = vars(task)
    own = [group for part in parts.values() if isinstance(part, Optimizer) for group in part.param_groups]
    known = {id(parameter) for _, parameter in task.named_parameters()}
    known |= {id(parameter) for group in own for parameter in group["params"]}
    names = []
    for key, module in _modules("", parts):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                known.add(id(parameter))  # one loss may serve several terms
                names.append(f"{key}.{name}")
    return names


def _modules(key: str, value: object) -> Iterator[tuple[str, nn.Module]]:
    """Yield each network in ``value`` with its dotted name: a loss may hold others, as a sum or as terms do."""
    if isinstance(value, nn.Module):
        yield key, value
    parts = {name: loss for name, (_, loss) in value.terms.items()} if isinstance(value, WeightedSum) else value
    if isinstance(parts, Mapping):
        for name, part in parts.items():
            yield from _modules(f"{key}.{name}" if key else name, part)


def _layer_groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """timm's groups: a layer's rate is ``lr_scale`` of the last one's; vectors and the model's list do not decay."""
    own: Any = getattr(model, "no_weight_decay", tuple)
    spared = {*config.no_decay, *own()}
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model,
        weight_decay=config.weight_decay,
        no_weight_decay_list=spared,
        layer_decay=config.layer_decay,
        weight_decay_exclude_1d=True,
    )
    return groups


def _groups(config: OptimizerConfig, named: Iterable[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    """Parameters by whether they are faster, and by whether they are spared from weight decay."""
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        spared = any(part in name for part in config.no_decay) or not (config.decay_vectors or parameter.ndim > 1)
        members.setdefault((name.startswith(tuple(config.faster)), spared), []).append(parameter)
    return [
        {"params": parameters}
        | ({"weight_decay": 0.0} if spared else {})
        | ({"lr_scale": config.faster_by} if faster else {})
        for (faster, spared), parameters in sorted(members.items(), key=lambda item: item[0])
    ]


def apply_schedule(schedule: Schedule, optimizer: Optimizer, *, lr: float, epoch: int, epochs: int) -> float:
    """Set the rate of ``epoch``, counted from 1, to its share of the peak ``lr``; returns it.

    The momentum, which only SGD has, is set too if the schedule changes it. A schedule per step gets the step and the
    number of all steps. Groups with an ``lr_scale`` have the rate times that.
    """
    rate, momentum = lr * schedule.lr_factor(epoch, epochs), schedule.momentum(epoch, epochs)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if momentum is not None:
            group["momentum"] = momentum
    return rate
