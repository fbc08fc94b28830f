"""Values of a training configuration that no run could use, found before any work."""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf

from dkl.config.compose import shipped
from dkl.config.schema import AugmentConfig, OptimizerName, TrainConfig
from dkl.errors import UserError
from dkl.threat import NORMS, parse_attacks, parse_steps, parse_threat


def _at_least(cfg: DictConfig, least: float, *keys: str) -> None:
    for key in keys:
        value = OmegaConf.select(cfg, key)
        if value is not None and not least <= value < math.inf:
            raise UserError(f"{key}={value} must be a number of at least {least}")


def _missing(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Keys that still have no value (``???``), without resolving interpolations to them."""
    found: list[str] = []
    for key in map(str, cfg):
        child = cfg._get_node(key)
        if isinstance(child, Node) and child._is_missing():
            found.append(f"{prefix}{key}")
        elif isinstance(child, DictConfig) and not child._is_none():
            found += _missing(child, f"{prefix}{key}.")
    return found


FIXED_GROUPS = ("model", "attack", "averaging", "schedule")
"""Groups whose choice a recipe or budget holds a run to; losses and data are a row's own."""

FREE = re.compile(r"attack\.objective\b.*|model\.(?!name$).*|task\.warmup_epochs|trainer\.workers")
"""Values of those groups that are a row's own all the same, and one that changes no batch."""


def _leaves(path: Path, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value of a YAML file, and of the files and choices in its defaults list."""
    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    found: dict[str, Any] = {}
    by_task: dict[str, Any] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            found |= {} if entry == "_self_" else _leaves(path.with_name(f"{entry}.yaml"), prefix)
            continue
        for group, choice in ((str(key).removeprefix("override /"), choice) for key, choice in entry.items()):
            other = path.parents[1] / group / f"{choice}.yaml"
            if group in FIXED_GROUPS:
                found |= _leaves(other, f"{group}.")
            if group == "task":  # composed after the attack, it may set what that raises, and from where
                by_task |= {key: value for key, value in _leaves(other).items() if key.startswith("attack.")}
    plain = OmegaConf.to_container(content, resolve=False)
    assert isinstance(plain, dict)
    return found | by_task | {f"{prefix}{key}": value for key, value in _flat(plain) if key != "defaults"}


def _flat(content: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key; those that follow another key are left out."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and "${" in value):
            yield f"{prefix}{key}", value


def _check_budget(cfg: DictConfig) -> None:
    """A budget's name is kept only with the budget's sizes, and ``paper`` only with a recipe of the paper unchanged."""
    name = cfg.budget.name
    if name in ("own", "smoke"):  # the one promises no sizes, the other's figures are never shown
        return
    fixed = _leaves(shipped("configs") / "budget" / f"{name}.yaml")
    if name == "paper":
        if cfg.recipe_name == "quick":
            raise UserError("budget=paper needs a recipe of the paper: add recipe=official, or use budget=own")
        fixed |= _leaves(shipped("configs") / "recipe" / f"{cfg.recipe_name}.yaml")
    for key, value in fixed.items():
        now = OmegaConf.select(cfg, key)
        if FREE.fullmatch(key) or (name == "mini" and key == "model.name"):  # distillation has its own small networks
            continue
        if (now.value if isinstance(now, Enum) else now) != value:
            raise UserError(f"budget={name} fixes {key}={value}, here it is {now}; use budget=own for your own sizes")


def _check_selection(cfg: DictConfig) -> None:
    selection, weights = cfg.selection, cfg.evaluation.weights
    if bool(selection.holdout) != bool(selection.every):
        raise UserError("selection.holdout (images) and selection.every (epochs) go together: set both, or neither")
    if parse_steps(selection.attack) is None:
        raise UserError(f"selection.attack={selection.attack} must be pgd-K or cw-K, such as pgd-20")
    parse_threat(selection.norm, selection.eps, "selection.")
    if selection.every and cfg.averaging and cfg.averaging.buffers == "estimate":
        raise UserError(
            "averaging.buffers=estimate is for the end of training; with selection.every use copy or average"
        )
    if weights not in (None, "last", "average", "best"):
        raise UserError(f"evaluation.weights={weights} must be last, average or best")
    if (weights == "average" and not cfg.averaging) or (weights == "best" and not selection.every):
        kept = "averaging=epoch_ema" if weights == "average" else "selection.holdout and selection.every"
        raise UserError(f"evaluation.weights={weights}, but this run keeps none: set {kept}")


def _check_optimizer(cfg: DictConfig) -> None:
    name = cfg.optimizer.name
    if cfg.optimizer.nesterov and name is not OptimizerName.sgd:
        raise UserError(f"optimizer.nesterov=true is SGD's, not {name.value}'s: set optimizer.nesterov=false")
    if cfg.optimizer.nesterov and not cfg.optimizer.momentum:
        raise UserError(
            "optimizer.nesterov=true needs momentum: set optimizer.momentum=0.9, or optimizer.nesterov=false"
        )


def _check_accumulation(cfg: DictConfig) -> None:
    """A batch has enough images for its parts, and no step needs the gradient of them all before it differentiates."""
    parts, size = cfg.trainer.accumulate * cfg.trainer.devices, cfg.trainer.batch_size
    if cfg.trainer.accumulate > 1 and parts > size:
        raise UserError(
            f"trainer.accumulate={cfg.trainer.accumulate} on {cfg.trainer.devices} devices cuts a batch of {size} into "
            f"{parts} parts: lower trainer.accumulate, or raise trainer.batch_size"
        )
    if cfg.trainer.accumulate > 1 and OmegaConf.select(cfg, "task.awp.gamma"):
        raise UserError(
            "task.awp perturbs weights by the gradient of a whole batch, which trainer.accumulate cuts: set "
            "trainer.accumulate=1 (and use trainer.devices), or task.awp.gamma=0"
        )


def _check_cache(cfg: DictConfig) -> None:
    """A teacher's logits are kept only of images that every epoch shows alike."""
    if not OmegaConf.select(cfg, "task.cache_teacher"):
        return
    plain = asdict(AugmentConfig())
    changing = [f"data.augment.{key}" for key, value in cfg.data.augment.items() if value != plain[str(key)]]
    changing += [f"task.{key}" for key in ("mixup", "cutmix") if cfg.task.get(key)]
    changing += ["data.synthetic.files"] if cfg.data.synthetic.files else []
    if changing:
        raise UserError(
            f"task.cache_teacher=true keeps one prediction an image, but {', '.join(changing)} change the images: set "
            "task.cache_teacher=false, or turn those off"
        )


def _check_long_tail(cfg: DictConfig) -> None:
    """A cut takes classes alike, and few images of any."""
    if cfg.data.name == "imagenet_lt" and cfg.data.train_size:
        raise UserError(
            f"data.train_size={cfg.data.train_size} takes as many images of every class, which leaves no long tail: "
            "set data.train_size=null with budget=own, or use budget=paper or smoke"
        )


def _check_synthetic(cfg: DictConfig) -> None:
    files, fraction = cfg.data.synthetic.files, cfg.data.synthetic.fraction
    if bool(files) != bool(fraction):
        raise UserError(
            f"data.synthetic.files names {len(files)} files and data.synthetic.fraction={fraction}: choose a data set "
            "with both, such as data=cifar10_1m, or set both, or neither"
        )


def _check_norms(cfg: DictConfig) -> None:
    """Training, selection and evaluation under one norm; ``dkl evaluate norm=…`` asks for another afterwards."""
    norm = cfg.attack.get("norm") if cfg.attack else None
    evaluated = {"evaluation": cfg.evaluation.norm} | ({"selection": cfg.selection.norm} if cfg.selection.every else {})
    for part, other in evaluated.items():
        if norm in NORMS and other != norm:
            raise UserError(
                f"attack.norm={norm}, but {part}.norm={other}: add {part}.norm={norm} and {part}.eps=…, the radius"
            )


def check(cfg: DictConfig) -> None:
    """Numbers of a training configuration that no run could use. Raises UserError that names key and mend."""
    known = [item.name for item in fields(TrainConfig)]
    if unknown := sorted({str(key) for key in cfg} - set(known)):
        raise UserError(f"there is no key {unknown[0]!r} at the root; there are {', '.join(known)}")
    if missing := _missing(cfg):
        raise UserError(f"these have no value yet: {', '.join(missing)}; set them, such as {missing[0]}=…")
    _at_least(cfg, 1, "trainer.epochs", "trainer.batch_size", "trainer.accumulate", "evaluation.batch_size")
    parse_attacks(cfg.evaluation.attacks)
    parse_threat(cfg.evaluation.norm, cfg.evaluation.eps, "evaluation.")
    _at_least(cfg, 1, "data.num_classes", "data.train_size", "data.test_size", "trainer.threads", "trainer.devices")
    _at_least(cfg, 1, "evaluation.n")
    _at_least(cfg, 0, "seed", "evaluation.seed", "optimizer.lr", "optimizer.momentum", "optimizer.weight_decay")
    _at_least(cfg, 0, "data.augment.crop_padding", "trainer.validate_every")
    _at_least(cfg, 0, "trainer.workers", "selection.holdout", "selection.every")
    _check_optimizer(cfg)
    _check_accumulation(cfg)
    _check_cache(cfg)
    _check_selection(cfg)
    _check_norms(cfg)
    _check_synthetic(cfg)
    _check_long_tail(cfg)
    _check_budget(cfg)
    if len(cfg.data.shape) != 3:
        raise UserError(f"data.shape={list(cfg.data.shape)} must be (channels, height, width)")
    if cfg.model.num_classes != cfg.data.num_classes:
        raise UserError(
            f"model.num_classes={cfg.model.num_classes}, but {cfg.data.name} has {cfg.data.num_classes} classes; "
            "leave model.num_classes alone, it follows the data"
        )
