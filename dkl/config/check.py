"""Values of a training configuration that no run could use, found before any work. One function per rule."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf

from dkl.config.compose import check_known, choices, plain, shipped, typed
from dkl.config.identity import TEACHERS, batch_norm_parts, leaves, views_together
from dkl.config.schema import AugmentConfig, DataConfig, TrainConfig
from dkl.errors import UserError, choose_from, shortened
from dkl.threat import EVALUATED_NORMS, NORMS, parse_attacks, parse_steps, parse_threat
from dkl.validation import check_fields

LONGEST_NAME = 100
"""Bytes of a label, and letters of a dataset's name: file names hold both, and may have 255 bytes."""

FIXED_GROUPS = ("model", "attack", "averaging", "schedule")
"""Groups whose choice in a recipe or budget is fixed too. Loss and data belong to the row of a table."""

FREE = re.compile(r"attack\.objective\b.*|model\.(?!name$).*|task\.(warmup_epochs|masked)|trainer\.workers")
"""Keys of those groups that a row may set, and the number of workers, which changes no batch."""


def check(cfg: DictConfig) -> TrainConfig:
    """Return ``cfg`` as dataclasses. Raises UserError on a value that no run could use, with the key and a fix."""
    _check_keys(cfg)
    config = typed(cfg, TrainConfig)
    check_label(config.label)
    check_fields(config)
    _check_evaluation(config)
    _check_threats(config)
    _check_accumulation(config)
    _check_batch_norm(config)
    _check_teacher_cache(config)
    _check_semi_supervised(config)
    _check_selection(config)
    _check_data(config.data)
    _check_budget(cfg)
    _check_epochs(config)
    inner = {f"task.{key}": config.task.get(key) or {} for key in ("guide", *TEACHERS)}
    for key, part in {"model": config.model, "task": config.task, **inner}.items():
        classes = part.get("num_classes")
        if classes is not None and classes != config.data.num_classes:
            raise UserError(
                f"{key}.num_classes={classes}, but {config.data.name} has {config.data.num_classes} classes; leave "
                f"{key}.num_classes alone, it follows the data"
            )
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


def check_complete(cfg: DictConfig, prefix: str = "") -> None:
    """Raise UserError if a key of ``cfg``, which begins with ``prefix``, has no value yet (``???``)."""

    def missing(cfg: DictConfig, prefix: str) -> Iterator[str]:  # without resolving interpolations to such keys
        for key in map(str, cfg):
            child = cfg._get_node(key)
            if isinstance(child, Node) and child._is_missing():
                yield f"{prefix}{key}"
            elif isinstance(child, DictConfig) and not child._is_none():
                yield from missing(child, f"{prefix}{key}.")

    if keys := list(missing(cfg, prefix)):
        raise UserError(f"these have no value yet: {', '.join(keys)}; set them, such as {keys[0]}=…")


def _check_keys(cfg: DictConfig) -> None:
    """There is no unknown key, every key has a value, and a shape has three sizes."""
    check_known(cfg, TrainConfig)
    check_complete(cfg)
    for key, fix in (
        ("awp", "gamma=0.005"),
        ("guide", "name=NETWORK"),
        ("teacher", "run=FOLDER"),
        ("natural_teacher", "run=FOLDER"),
    ):
        if (node := cfg.task.get(key)) is not None and not isinstance(node, DictConfig):
            raise UserError(f"task.{key}={node} must be a group of values: set them, such as task.{key}.{fix}")
    shape = cfg.data.shape  # others refer to its entries
    if not isinstance(shape, ListConfig) or len(shape) != 3:
        raise UserError(f"data.shape={shape} must be [channels, height, width]")


def _check_evaluation(config: TrainConfig) -> None:
    """Attacks exist, there are as many images, and the run keeps the weights to be evaluated."""
    evaluation, test_size = config.evaluation, config.data.test_size
    parse_attacks(evaluation.attacks, own=False)
    if evaluation.n is not None and test_size is not None and evaluation.n > test_size:
        raise UserError(
            f"evaluation.n={evaluation.n} is more than data.test_size={test_size}: lower it, or set it to null"
        )
    weights = evaluation.weights
    if (weights == "average" and not config.averaging) or (weights == "best" and not config.selection.every):
        needed = "averaging=epoch_ema" if weights == "average" else "selection.holdout and selection.every"
        raise UserError(f"evaluation.weights={weights}, but this run keeps no such weights: set {needed}")


def _check_threats(config: TrainConfig) -> None:
    """Radii suit their norms and the images, and training, selection and evaluation use one norm.

    ``dkl evaluate norm=…`` can use another one afterwards.
    """
    attack, selection, evaluation = config.attack or {}, config.selection, config.evaluation
    parse_threat(evaluation.norm, evaluation.eps, "evaluation.", config.data.shape, EVALUATED_NORMS)
    parse_threat(selection.norm, selection.eps, "selection.", config.data.shape)
    if {"norm", "eps"} <= set(attack):
        parse_threat(attack["norm"], attack["eps"], "attack.", config.data.shape)
    norm = attack.get("norm")
    for part, other in (("evaluation", evaluation.norm), ("selection", selection.norm if selection.every else norm)):
        if norm in NORMS and other != norm:
            raise UserError(
                f"attack.norm={norm}, but {part}.norm={other}: add {part}.norm={norm} and {part}.eps=…, the radius"
            )


def _check_accumulation(config: TrainConfig) -> None:
    """Rates are given once, a batch has an image for each of its parts, and what needs the whole batch gets it."""
    trainer, task, optimizer = config.trainer, config.task, config.optimizer
    if optimizer.layer_decay is not None and optimizer.faster:
        raise UserError(
            f"optimizer.layer_decay={optimizer.layer_decay} gives every layer its rate: set optimizer.faster=[], or it "
            "to null"
        )
    if optimizer.nesterov and not optimizer.momentum and optimizer.title == "optimizer.name=sgd":
        raise UserError(
            "optimizer.nesterov=true needs momentum: set optimizer.momentum=0.9, or optimizer.nesterov=false"
        )
    parts, size = trainer.accumulate * trainer.devices, trainer.batch_size
    if parts > size:
        raise UserError(
            f"trainer.devices={trainer.devices} and trainer.accumulate={trainer.accumulate} cut a batch of {size} into "
            f"{parts} parts: lower one of them, or raise trainer.batch_size"
        )
    if trainer.accumulate == 1:
        return
    fix = "set trainer.accumulate=1 (and use trainer.devices), or"
    if (task.get("awp") or {}).get("gamma"):
        raise UserError(
            "task.awp perturbs weights by the gradient of a whole batch, which trainer.accumulate cuts: "
            f"{fix} task.awp.gamma=0"
        )
    for key in ("prototype_weight", "align_weight"):
        if task.get(key):
            raise UserError(
                f"task.{key}={task[key]} needs the prototypes of a whole batch, which trainer.accumulate cuts: "
                f"{fix} task.prototype_weight=0 and task.align_weight=0"
            )


def _check_batch_norm(config: TrainConfig) -> None:
    """The parts of a batch that BatchNorm sees together fit its devices."""
    trainer = config.trainer
    parts, devices = batch_norm_parts(trainer), trainer.devices
    both_views = views_together(config.data.augment.second_view, config.task)
    by_view = both_views and (trainer.batch_norm_share or 1) > 1
    if parts == devices and not by_view:
        return
    if parts % devices:
        raise UserError(
            f"trainer.batch_norm_share={parts} must be a multiple of trainer.devices={devices}, because BatchNorm "
            f"cannot see images of several devices together: use fewer devices, or trainer.batch_norm_share={devices}"
        )
    if by_view and parts // devices % 2:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices would show BatchNorm both views together, because "
            "each device has both: use half as many devices or fewer, or trainer.batch_norm_share=null"
        )
    if trainer.sync_batchnorm:
        raise UserError("trainer.sync_batchnorm=true shows BatchNorm whole batches: set trainer.batch_norm_share=null")
    if trainer.accumulate > 1 or trainer.batch_size % parts:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices needs trainer.accumulate=1 and a multiple of "
            f"{parts} as trainer.batch_size, not accumulate={trainer.accumulate} and batch_size={trainer.batch_size}; "
            "trainer.batch_norm_share=null lets BatchNorm see whole batches"
        )
    if config.data.labels_per_class is not None:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices needs one kind of images in each forward pass, but "
            f"data.labels_per_class adds unlabeled ones: use {parts} devices"
        )


def _check_teacher_cache(config: TrainConfig) -> None:
    """A teacher's logits can be kept only if every epoch shows the same images."""
    if not config.task.get("cache_teacher"):
        return
    usual = asdict(AugmentConfig())
    changing = [f"data.augment.{key}" for key, value in asdict(config.data.augment).items() if value != usual[key]]
    changing += [f"task.{key}" for key in ("mixup", "cutmix") if config.task.get(key)]
    changing += ["data.synthetic.files"] if config.data.synthetic.files else []
    if changing:
        raise UserError(
            f"task.cache_teacher=true keeps one prediction per image, but {', '.join(changing)} change the images: set "
            "task.cache_teacher=false, or turn those off"
        )


def _check_semi_supervised(config: TrainConfig) -> None:
    """Few labels and unlabeled images go together, and with nothing that changes which images a batch has."""
    data, trainer = config.data, config.trainer
    ratio, augment = data.unlabeled.ratio, data.augment
    if data.labels_per_class is None:
        for key, value in (("data.unlabeled.ratio", ratio), ("trainer.steps_per_epoch", trainer.steps_per_epoch)):
            if value:
                raise UserError(f"{key}={value} needs few labels: set data.labels_per_class, such as 25")
        return
    others: dict[str, object] = {
        "data.synthetic.files": data.synthetic.files,
        "data.augment.second_view": augment.second_view,
        "data.augment.randaugment": augment.randaugment,
        "data.augment.repeats": augment.repeats > 1 and augment.repeats,
        "selection.every": config.selection.every,
    }
    for key, other in others.items():
        if other:
            raise UserError(f"{key}={other} does not work with data.labels_per_class: remove one of them")
    parts = trainer.devices * trainer.accumulate
    if ratio and trainer.batch_size % parts:
        raise UserError(
            f"trainer.batch_size={trainer.batch_size} cannot be cut into {parts} equal parts (devices x accumulate): "
            f"choose a multiple of {parts}"
        )


def _check_selection(config: TrainConfig) -> None:
    """Held-out images and the epochs that are measured on them go together."""
    selection = config.selection
    if bool(selection.holdout) != bool(selection.every):
        raise UserError("selection.holdout (images) and selection.every (epochs) go together: set both, or neither")
    if parse_steps(selection.attack) is None:
        raise UserError(f"selection.attack={selection.attack} must be pgd-K or cw-K, such as pgd-20")
    if selection.every and config.averaging and config.averaging.get("buffers") == "estimate":
        raise UserError(
            "averaging.buffers=estimate is for the end of training; with selection.every use copy or average"
        )


def _check_data(data: DataConfig) -> None:
    """Synthetic images have files and a share; a long tail is not cut to equal classes; names are known."""
    files, fraction = data.synthetic.files, data.synthetic.fraction
    if bool(files) != bool(fraction):
        raise UserError(
            f"data.synthetic.files names {len(files)} files and data.synthetic.fraction={fraction}: choose a dataset "
            "with both, such as data=cifar10_1m, or give files and a fraction between 0 and 1, or neither and 0"
        )
    if data.source.get("train", "") is None:
        raise UserError("+data.source.train=null is for dkl evaluate, which needs no training images: leave it out")
    if data.long_tail and data.train_size:
        raise UserError(
            f"data.train_size={data.train_size} takes as many images of every class, which leaves no long tail: "
            "set data.train_size=null with budget=own, or use budget=paper or smoke"
        )
    if not re.fullmatch(r"[\w+-][\w.+-]*", data.name) or len(data.name) > LONGEST_NAME:
        raise UserError(
            f"data.name={shortened(data.name)!r} names folders: use at most {LONGEST_NAME} letters, digits, _, - and ."
        )


def _check_budget(cfg: DictConfig) -> None:
    """No value differs from what the budget, or at ``paper`` the recipe, fixes."""
    name = cfg.budget.name
    if name in ("own", "smoke"):  # own fixes nothing; the values of smoke are never shown
        return
    file = shipped("configs") / "budget" / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"budget.name={name}: {choose_from(str(name), choices('budget'))}, as budget=NAME")
    fixed = _fixed(file)
    if name == "paper":
        if cfg.recipe_name == "quick":
            raise UserError("budget=paper needs a recipe of the paper: add recipe=official, or use budget=own")
        recipe = shipped("configs") / "recipe" / f"{cfg.recipe_name}.yaml"
        if not recipe.is_file():  # found on the user's hydra.searchpath
            raise UserError(
                f"budget=paper needs a recipe of the paper, and recipe={cfg.recipe_name} is not shipped: use budget=own"
            )
        fixed |= _fixed(recipe)
    free: tuple[str, ...] = ("model.name",) if name == "mini" else ()  # distillation has its own small networks
    if name == "mini" and cfg.data.ignore_index is not None:  # with a label per pixel a manifest chooses the sizes
        free += ("data.train_size", "data.test_size", "trainer.epochs")
    for key, value in fixed.items():
        now = OmegaConf.select(cfg, key)
        now = now.value if isinstance(now, Enum) else now
        if now != value and key not in free and not FREE.fullmatch(key):
            raise UserError(f"budget={name} fixes {key}={value}, here it is {now}; use budget=own for your own sizes")


def _fixed(path: Path, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of a YAML file, and of the files and choices in its defaults list.

    The files are read directly, not composed: a composed configuration no longer says which file set a value.
    Interpolations are left out, because their values follow other keys.
    """
    content = plain(OmegaConf.load(path), resolve=False)
    fixed: dict[str, Any] = {}
    from_task: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            fixed |= {} if entry == "_self_" else _fixed(path.with_name(f"{entry}.yaml"), prefix)
            continue
        for key, choice in entry.items():
            group = key.removeprefix("override /")
            other = path.parents[1] / group / f"{choice}.yaml"
            if group in FIXED_GROUPS:
                fixed |= _fixed(other, f"{group}.")
            if group == "task":  # Hydra composes it after the attack, so what it sets there wins
                from_task |= {key: value for key, value in _fixed(other).items() if key.startswith("attack.")}
    own = {f"{prefix}{key}": value for key, value in leaves(content) if not (isinstance(value, str) and "${" in value)}
    return fixed | from_task | own


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
