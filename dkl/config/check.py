"""Values of a training configuration that no run could use, found before any work. One function per rule."""

import re

from omegaconf import DictConfig, ListConfig, Node

from dkl.config.budgets import check_budget
from dkl.config.check_batches import check_batches
from dkl.config.compose import typed
from dkl.config.schema import (
    WEIGHTS,
    DataConfig,
    OptimizerConfig,
    OptimizerName,
    TrainConfig,
)
from dkl.config.unknown import check_known
from dkl.errors import UserError, shortened
from dkl.threat import EVALUATED_NORMS, NORMS, PRECISIONS, parse_attacks, parse_steps, parse_threat
from dkl.validation import check_fields

LONGEST_NAME = 100
"""Bytes of a label, and letters of a dataset's name: file names hold both, and may have 255 bytes."""


def check(cfg: DictConfig) -> TrainConfig:
    """Return ``cfg`` as dataclasses. Raises UserError on a value that no run could use, with the key and a fix."""
    _check_keys(cfg)
    config = typed(cfg, TrainConfig)
    check_label(config.label)
    check_fields(config)
    parse_attacks(config.evaluation.attacks, own=False)
    if config.evaluation.precision not in PRECISIONS:
        raise UserError(f"evaluation.precision={config.evaluation.precision} must be {' or '.join(PRECISIONS)}")
    n, test_size = config.evaluation.n, config.data.test_size
    if n is not None and test_size is not None and n > test_size:
        raise UserError(f"evaluation.n={n} is more than data.test_size={test_size}: lower it, or set it to null")
    _check_radii(config)
    _check_optimizer(config.optimizer)
    if config.trainer.compile not in (True, False, "reduce-overhead"):
        raise UserError(f"trainer.compile={config.trainer.compile} must be false, true or reduce-overhead")
    check_batches(config)
    _check_selection(config)
    _check_evaluated_weights(config)
    _check_norms(config)
    _check_data(config.data)
    check_budget(cfg)
    _check_epochs(config)
    _check_classes(config)
    return config


def check_label(label: str | None) -> None:
    """Raise UserError if ``label`` cannot name a method in tables and in file names."""
    if label is not None and not (label.strip() and label.isprintable() and len(label.encode()) <= LONGEST_NAME):
        raise UserError(
            f"label={shortened(label)!r} must be one line of 1 to {LONGEST_NAME} bytes: shorten it, or leave it out "
            "for the name of the loss"
        )


def check_subject(run: str | None, checkpoint: str | None, network: str | None = None) -> None:
    """Raise UserError unless ``dkl evaluate`` is given either a run, or a checkpoint or network of somebody else."""
    if bool(run) == bool(checkpoint or network):
        raise UserError("name what to evaluate: run=FOLDER, or checkpoint=FILE with model=… and data=…")


def _check_keys(cfg: DictConfig) -> None:
    """There is no unknown key, every key has a value, and a shape has three sizes."""
    check_known(cfg, TrainConfig)
    check_complete(cfg)
    for key in ("awp", "guide", "teacher"):
        if (node := cfg.task.get(key)) is not None and not isinstance(node, DictConfig):
            fix = {"awp": "gamma=0.005", "guide": "name=NETWORK", "teacher": "run=FOLDER"}[key]
            raise UserError(f"task.{key}={node} must be a group of values: set them, such as task.{key}.{fix}")
    shape = cfg.data.shape  # others refer to its entries
    if not isinstance(shape, ListConfig) or len(shape) != 3:
        raise UserError(f"data.shape={shape} must be [channels, height, width]")


def check_complete(cfg: DictConfig, prefix: str = "") -> None:
    """Raise UserError if a key of ``cfg``, which begins with ``prefix``, has no value yet."""
    if missing := _missing(cfg, prefix):
        raise UserError(f"these have no value yet: {', '.join(missing)}; set them, such as {missing[0]}=…")


def _missing(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Return the keys without a value (``???``), without resolving interpolations to them."""
    found: list[str] = []
    for key in map(str, cfg):
        child = cfg._get_node(key)
        if isinstance(child, Node) and child._is_missing():
            found.append(f"{prefix}{key}")
        elif isinstance(child, DictConfig) and not child._is_none():
            found += _missing(child, f"{prefix}{key}.")
    return found


def _check_epochs(config: TrainConfig) -> None:
    """Milestones are shares of training, and whatever begins or repeats after some epochs does so within training."""
    epochs, schedule, task = config.trainer.epochs, config.schedule, config.task
    milestones = schedule.get("milestones") or []
    if isinstance(milestones, list) and any(isinstance(place, int | float) and place > 1 for place in milestones):
        shares = [round(place / epochs, 4) for place in milestones if isinstance(place, int | float)]
        fix = f"write {shares} for these of {epochs} epochs" if max(shares) < 1 else "write 0.5 for half of training"
        raise UserError(f"schedule.milestones={milestones} are shares of training in (0, 1), not epochs: {fix}")
    if config.budget.name == "smoke":  # two epochs of any recipe
        return
    awp = task.get("awp") or {}
    later = {
        "schedule.warmup_epochs": schedule.get("warmup_epochs"),
        "task.warmup_epochs": task.get("warmup_epochs"),
        "task.awp.start": awp.get("start") if awp.get("gamma") else None,
        "selection.every": config.selection.every,
    }
    for key, value in later.items():
        if isinstance(value, int | float) and value > epochs:
            raise UserError(f"{key}={value} is more than trainer.epochs={epochs}: lower it, or train for more epochs")


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    """Nesterov momentum is momentum of SGD, and layer decay gives every part its rate."""
    name, decay = optimizer.name, optimizer.layer_decay
    if decay is not None and optimizer.faster:
        raise UserError(
            f"optimizer.layer_decay={decay} gives every layer its rate: set optimizer.faster=[], or it to null"
        )
    if optimizer.nesterov and name is not OptimizerName.sgd:
        raise UserError(f"optimizer.nesterov=true is only for sgd, not {name.value}: set optimizer.nesterov=false")
    if optimizer.nesterov and not optimizer.momentum:
        raise UserError(
            "optimizer.nesterov=true needs momentum: set optimizer.momentum=0.9, or optimizer.nesterov=false"
        )


def _check_selection(config: TrainConfig) -> None:
    selection = config.selection
    if bool(selection.holdout) != bool(selection.every):
        raise UserError("selection.holdout (images) and selection.every (epochs) go together: set both, or neither")
    if parse_steps(selection.attack) is None:
        raise UserError(f"selection.attack={selection.attack} must be pgd-K or cw-K, such as pgd-20")
    if selection.every and config.averaging and config.averaging.get("buffers") == "estimate":
        raise UserError(
            "averaging.buffers=estimate is for the end of training; with selection.every use copy or average"
        )


def check_weights(weights: str | None, key: str = "weights") -> None:
    """Raise UserError, which names ``key``, unless ``weights`` is a kind that a run can keep, or None."""
    if weights not in (None, *WEIGHTS):
        raise UserError(f"{key}={weights} must be last, average or best")


def _check_evaluated_weights(config: TrainConfig) -> None:
    """The run keeps the weights that are to be evaluated."""
    weights = config.evaluation.weights
    check_weights(weights, "evaluation.weights")
    if (weights == "average" and not config.averaging) or (weights == "best" and not config.selection.every):
        needed = "averaging=epoch_ema" if weights == "average" else "selection.holdout and selection.every"
        raise UserError(f"evaluation.weights={weights}, but this run keeps no such weights: set {needed}")


def _check_radii(config: TrainConfig) -> None:
    """The radii of training, selection and evaluation suit their norms and the images."""
    attack = config.attack or {}
    threats = [("evaluation.", config.evaluation.norm, config.evaluation.eps)]
    threats += [("selection.", config.selection.norm, config.selection.eps)]
    threats += [("attack.", attack["norm"], attack["eps"])] if {"norm", "eps"} <= set(attack) else []
    for key, norm, eps in threats:
        norms = EVALUATED_NORMS if key == "evaluation." else NORMS
        parse_threat(norm, eps, key, config.data.shape, norms)


def _check_norms(config: TrainConfig) -> None:
    """Training, selection and evaluation use one norm; ``dkl evaluate norm=…`` can use another afterwards."""
    norm = config.attack.get("norm") if config.attack else None
    others = {"evaluation": config.evaluation.norm}
    if config.selection.every:
        others["selection"] = config.selection.norm
    for part, other in others.items():
        if norm in NORMS and other != norm:
            raise UserError(
                f"attack.norm={norm}, but {part}.norm={other}: add {part}.norm={norm} and {part}.eps=…, the radius"
            )


def _check_data(data: DataConfig) -> None:
    """Synthetic images have files and a share; a long tail is not cut to equal classes; names are known."""
    files, fraction = data.synthetic.files, data.synthetic.fraction
    if bool(files) != bool(fraction):
        raise UserError(
            f"data.synthetic.files names {len(files)} files and data.synthetic.fraction={fraction}: choose a dataset "
            "with both, such as data=cifar10_1m, or give files and a fraction between 0 and 1, or neither and 0"
        )
    if data.interpolation not in ("bilinear", "bicubic"):
        raise UserError(f"data.interpolation={data.interpolation} must be bilinear or bicubic")
    if data.long_tail and data.train_size:
        raise UserError(
            f"data.train_size={data.train_size} takes as many images of every class, which leaves no long tail: "
            "set data.train_size=null with budget=own, or use budget=paper or smoke"
        )
    if not re.fullmatch(r"[\w+-][\w.+-]*", data.name) or len(data.name) > LONGEST_NAME:
        raise UserError(
            f"data.name={shortened(data.name)!r} names folders: use at most {LONGEST_NAME} letters, digits, _, - and ."
        )


def _check_classes(config: TrainConfig) -> None:
    """Network, task and guide have as many classes as the data, if their configuration says how many they have."""
    for key, part in (("model", config.model), ("task", config.task), ("task.guide", config.task.get("guide") or {})):
        classes = part.get("num_classes")
        if classes is not None and classes != config.data.num_classes:
            raise UserError(
                f"{key}.num_classes={classes}, but {config.data.name} has {config.data.num_classes} classes; leave "
                f"{key}.num_classes alone, it follows the data"
            )
