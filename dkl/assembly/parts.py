"""Single objects of a run, each made from its own part of a configuration."""

import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from dkl.config import TargetConfig
from dkl.errors import UserError, first_line
from dkl.loggers import Logger
from dkl.runtime.distributed import rank
from dkl.tasks import Task
from dkl.threat import parse_eps
from dkl.training.averaging import Averaging
from dkl.training.schedules import Schedule
from dkl.validation import Setting, check, settings

T = TypeVar("T")


def make(node: TargetConfig, key: str, kind: type[T], **arguments: Any) -> T:
    """Instantiate ``node``, the value of ``key``, as a ``kind``.

    Raises UserError in one line if the class cannot be imported, refuses its arguments, or is of another kind.
    """
    check_node(node, key)
    check(settings_of(node, key))
    try:
        made = instantiate(node, _convert_="partial", **arguments)  # lists and mappings arrive as such
    except InstantiationException as error:
        cause, inner = error.__cause__, re.search(r"full_key: ([\w.]+)$", str(error))
        if isinstance(cause, UserError):
            if inner and inner[1].endswith("_teacher"):  # a teacher does not know which of several it is
                raise UserError(str(cause).replace("task.teacher", f"{key}.{inner[1]}")) from None
            raise cause from None
        for part in inner[1].split(".") if inner else ():  # the class in ``node`` that refuses
            node, key = node[part], f"{key}.{part}"
        if isinstance(cause, ImportError):
            target = next(target for target in targets(node) if f"'{target}'" in str(error))
            missing = re.search(r"No module named '([\w.]+)'", str(cause))
            if missing and not f"{target}.".startswith(f"{missing[1]}."):  # an import of the user's module
                raise UserError(f"{key}: {target} imports {missing[1]}, which is not installed") from None
            raise UserError(f"{key}: there is no {target} to import: check _target_ and PYTHONPATH") from None
        # A constructor that refuses its arguments is a mistake in the configuration; anything else is a defect.
        if cause is None or isinstance(cause, ValueError | TypeError):
            raise UserError(f"{key}: {first_line(cause or error)}{_accepted(node, key, str(cause))}") from None
        if not str(node["_target_"]).startswith("dkl."):
            raise UserError(f"{key}: {node['_target_']} raises {type(cause).__name__}: {first_line(cause)}") from cause
        raise
    if not isinstance(made, kind):
        wanted = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"{key}: {node['_target_']} must return a {wanted}, not a {type(made).__name__}")
    return made


def check_node(node: object, key: str) -> None:
    """Raise UserError if ``node``, the value of ``key``, does not name a class to make."""
    if not isinstance(node, Mapping):
        raise UserError(f"{key}={node} must hold a _target_, the import path of a class, and its arguments")
    if "_target_" not in node:
        raise UserError(f"{key} has no _target_: set it to the import path of a class, such as my_module.MyClass")


def settings_of(node: TargetConfig, key: str) -> Iterator[Setting]:
    """Yield the arguments in ``node``, the value of ``key``, and in the nodes in it, with their types and ranges."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from settings_of(value, f"{key}.{name}")
    if "_target_" in node:
        # A target that cannot be imported is reported when it is instantiated.
        with suppress(Exception), quiet():
            yield from settings(get_object(node["_target_"]), node, key)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Hydra from logging, in several lines, why it cannot import a target: the error says it."""
    logger = logging.getLogger("hydra.utils")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _accepted(node: TargetConfig, key: str, cause: str) -> str:
    """How to drop the argument that the class in ``node`` does not take, and those that it takes; else empty."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", cause)
    if not unexpected:
        return ""
    parameters = inspect.signature(get_object(node["_target_"])).parameters.values()
    names = [item.name for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    fix = "leave it out" if key == "arguments" or "[" in key else f"drop it with '~{key}.{unexpected[1]}'"
    return f": {fix}; the arguments of {node['_target_']} are {', '.join(names)}"


def build_model(model: TargetConfig, key: str = "model") -> nn.Module:
    """Build a network in float32 on the current default device. Errors name ``key``."""
    node = {key: value for key, value in model.items() if key != "title"}  # for tables; a plain module takes none
    return make(node, key, nn.Module)


def attack_node(attack: TargetConfig) -> TargetConfig:
    """``attack`` unless it names a function: that is called in every step, with eps as a number, so it is a partial."""
    with suppress(Exception), quiet():  # an attack that cannot be imported is reported when it is made
        if not isinstance(get_object(attack["_target_"]), type):
            radius = {"eps": parse_eps(attack["eps"], "attack.")} if "eps" in attack else {}
            return {**attack, **radius, "_partial_": True}
    return attack


def build_task(task: TargetConfig, model: nn.Module) -> Task:
    """Build a task around ``model``, with the loss and the attack in its configuration.

    Raises UserError, which names what is missing, if the training loop cannot use it.
    """
    attack = task.get("attack")
    # Any other attack stays in its configuration, to which its interpolations refer.
    if attack and (node := attack_node(attack)) is not attack:
        task = {**task, "attack": node}
    # With loss=none, ``loss: ${loss}`` is an empty mapping: the task gets None.
    absent = [key for key, value in task.items() if isinstance(value, Mapping) and not value]
    made = make(task, "task", object, model=model, **dict.fromkeys(absent))
    name = type(made).__name__
    if not isinstance(made, Task):
        raise UserError(f"task: {name} is not a task: derive it from dkl.tasks.Task and write step(batch, progress)")
    if not isinstance(getattr(made, "model", None), nn.Module):
        raise UserError(f"task: {name} has no model: set self.model in __init__, which is called with model=...")
    if inspect.isgeneratorfunction(type(made).step):
        raise UserError(f"task: {name}.step returns a generator: decorate it with @contextmanager")
    return made


def build_averaging(averaging: TargetConfig | None) -> Averaging | None:
    """Build the rule by which weights are averaged, or None without one."""
    return make(averaging, "averaging", Averaging) if averaging else None


def build_schedule(schedule: TargetConfig) -> Schedule:
    """Build the learning-rate schedule."""
    return make(schedule, "schedule", Schedule)  # type: ignore[type-abstract]  # isinstance takes it


def build_logger(logger: TargetConfig | None) -> Logger:
    """Build the logger of the first process. Without one, and in the other processes, it reports nowhere."""
    return make(logger, "logger", Logger) if logger and rank() == 0 else Logger()


def targets(value: object) -> Iterator[str]:
    """Yield every ``_target_`` in a resolved configuration."""
    if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
        yield value["_target_"]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in inner:
        yield from targets(item)
