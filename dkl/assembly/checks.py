"""Checks of a training configuration: ``preflight`` needs no data, no device and no time."""

from pathlib import Path

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dkl.assembly import parts
from dkl.assembly.data import make_augment
from dkl.config import ComposedRun, TargetConfig, TrainConfig, TrainerConfig, check, model_name, run_folder
from dkl.data import StrongView
from dkl.errors import UserError, first_line
from dkl.losses import ClassComparing, ClassPrior, Scheduled, check_pair_loss, wanted_arguments
from dkl.models import check_initial_weights
from dkl.runtime import launched
from dkl.runtime.device import check_processes, pick_device
from dkl.storage.files import check_writable
from dkl.tasks import RobustDistillation, Task
from dkl.training.averaging import Averaging
from dkl.training.optimizer import make_optimizer
from dkl.training.schedules import Schedule
from dkl.validation import check as check_ranges


def preflight(cfg: DictConfig) -> None:
    """Build every part once, the network without weights. Raises UserError on the first mistake.

    A teacher whose weights are downloaded is built without them first: no mistake is found after a long download.
    """
    run = ComposedRun(cfg)
    if run.downloads_teacher:
        _check_parts(run.with_untrained_teacher().cfg)
    _check_parts(cfg)


def _check_parts(cfg: DictConfig) -> None:
    config = check(cfg)
    pick_device(config.trainer.device)
    _check_teacher(config)
    for key, given in (("loss", config.loss), ("attack", config.attack)):
        if given and key not in config.task:
            raise UserError(f"{config.task['_target_']} takes no {key}: add {key}=none, or choose another task")
    if config.trainer.initial_weights:
        check_initial_weights(config.trainer.initial_weights)
    parts.check_node(config.data.source, "data.source")
    _check_labels(config)
    make_augment(config.data).check(tuple(config.data.shape))
    StrongView(**vars(config.data.unlabeled))
    check_ranges(parts.settings_of(config.data.source, "data.source"))
    if config.attack:  # the task holds the loss and the attack too, but here a mistake has the key that a user writes
        check_ranges(parts.settings_of(parts.attack_node(config.attack), "attack"))
        objective = config.attack.get("objective")
        if objective is not None and str(config.attack.get("_target_")).startswith("dkl."):
            parts.make(objective, "attack.objective", object)
    if config.loss:  # the task builds it too, but here a mistake is reported as the loss's
        _check_loss(config.loss, config.data.num_classes)
    model = _check_model(config)
    # The attack's random generator needs a real device, which the model on the meta device is not.
    task = parts.build_task(config.task, nn.Linear(1, 1) if config.attack else model)
    _check_needs(task, parts.build_averaging(config.averaging), parts.build_schedule(config.schedule), config)
    _check_devices(config.trainer)
    parts.build_logger(config.logger)
    check_writable(run_folder(cfg))


def _check_loss(node: TargetConfig, num_classes: int) -> None:
    """Raise UserError unless ``node`` makes a loss of ``dkl.losses``'s contract: a scalar for two logits ``[2, C]``."""
    try:
        loss = check_pair_loss(parts.make(node, "loss", object))
    except TypeError as error:
        raise UserError(f"loss: {first_line(error)}") from None
    name, labels = type(loss).__name__, torch.arange(2) % num_classes
    logits = torch.randn(2, 2, num_classes, generator=torch.Generator().manual_seed(0))
    try:
        value = loss(*logits, **wanted_arguments(loss, labels, ClassPrior(num_classes), 1 - torch.eye(num_classes)))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"loss: {name} cannot take two logits [2, {num_classes}]: {first_line(error)}") from None
    if not isinstance(value, Tensor) or value.ndim:
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"loss: {name} returns {found}, not a scalar: return the mean over the batch")


def _check_needs(task: Task, averaging: Averaging | None, schedule: Schedule, config: TrainConfig) -> None:
    """Raise UserError unless the run has the unlabeled images, average and momentum that its parts need."""
    name, ratio = type(task).__name__, config.data.unlabeled.ratio
    terms = task.terms if isinstance(task, RobustDistillation) else {}
    losses = [*task.losses.values()] if isinstance(task, RobustDistillation) else [getattr(task, "loss", None)]
    objective = getattr(task, "objective", None)
    for loss in (*losses, objective):
        compares, changes = isinstance(loss, ClassComparing), isinstance(loss, Scheduled)
        if (compares or changes) and (task.dense or not hasattr(task, "class_distances")):
            what = "compares classes by a teacher's distances" if compares else "changes during training"
            fix = "another attack.objective" if loss is objective else "task=distillation, or another loss"
            raise UserError(f"{type(loss).__name__} {what}, which {name} does not support: choose {fix}")
    epochs = config.trainer.epochs
    if late := next((key for key, term in terms.items() if term.from_epoch > epochs), None):
        raise UserError(f"task.terms.{late} begins after trainer.epochs={epochs}: lower task.terms.{late}.from_epoch")
    if task.needs_unlabeled and (not ratio or config.data.labels_per_class is None):
        raise UserError(
            f"data.unlabeled.ratio={ratio} and data.labels_per_class={config.data.labels_per_class}, but {name} needs "
            "unlabeled images: set both to at least 1"
        )
    if ratio and not task.needs_unlabeled:
        raise UserError(
            f"data.unlabeled.ratio={ratio}, but {name} takes no unlabeled images: set data.unlabeled.ratio=0, or "
            "choose task=fixmatch"
        )
    if task.needs_average and (averaging is None or averaging.per != "step"):
        raise UserError(f"{name} needs an average of the weights after each step: set averaging=ema_999")
    title = config.optimizer.title
    if title != "optimizer.name=sgd" and schedule.momentum(1, epochs) is not None:
        raise UserError(
            f"{type(schedule).__name__} changes the momentum of sgd, not of {title}: set optimizer.name=sgd, or choose "
            "another schedule, such as schedule=cosine"
        )
    make_optimizer(config.optimizer, [("weight", nn.Parameter(torch.zeros(2, 2)))])


def _check_labels(config: TrainConfig) -> None:
    """Raise UserError if the task needs a label per pixel and the data has one per image, or the reverse."""
    try:
        with parts.quiet():
            task = get_class(str(config.task["_target_"]))
    except (ImportError, ValueError):
        return  # reported when the task is built
    data, masks = config.data, config.data.ignore_index is not None
    if masks and not getattr(task, "dense", False):
        raise UserError(f"{data.name} has a label per pixel: add task=segmentation, or choose other data")
    if not masks and getattr(task, "dense", False):
        raise UserError(
            f"{task.__name__} needs a label per pixel and a value for pixels that do not count, but {data.name} has "
            "data.ignore_index=null: choose data=camvid, ade20k, masks or scenes"
        )
    if masks and config.selection.every:
        raise UserError("selection attacks images with one label each: set selection.holdout=0 and selection.every=0")


def _check_model(config: TrainConfig) -> nn.Module:
    """Build the model on the meta device.

    Raises UserError if it does not map images to one logit per class, or per class and pixel if pixels have labels.
    """
    data = config.data
    with torch.device("meta"), torch.no_grad():
        model = parts.build_model(config.model).eval()
        name = model_name(config.model)
        try:
            logits = model(torch.empty([2, *data.shape]))
        except NotImplementedError:  # an operation without a meta kernel: the shapes cannot be checked here
            return model
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{name} does not take images {list(data.shape)} of {data.name}: "
                f"{first_line(error)}; choose another model or data"
            ) from None
    if not isinstance(logits, Tensor):
        raise UserError(f"{name} returns a {type(logits).__name__}: its forward must return one tensor of logits")
    masks = data.ignore_index is not None
    wanted = (2, data.num_classes, *data.shape[1:]) if masks else (2, data.num_classes)
    if tuple(logits.shape) != wanted:
        fix = "give it num_classes: ${data.num_classes}"
        if len(logits.shape) != len(wanted):
            fix = f"choose a network that labels {'pixels, such as model=pspnet_resnet18' if masks else 'images'}"
        raise UserError(f"{name} gives {tuple(logits.shape)} for 2 images, not {wanted}; {fix}")
    return model


def _check_teacher(config: TrainConfig) -> None:
    """Raise UserError if a run of the paper's budgets has a teacher that was trained at another budget."""
    teacher, budget = config.task.get("teacher") or {}, config.budget.name
    run, checkpoint = teacher.get("run"), teacher.get("checkpoint")
    run = run or (Path(checkpoint).parent if checkpoint else None)
    if not run or budget == "own" or not (Path(run) / "config.yaml").is_file():
        return
    trained = OmegaConf.select(OmegaConf.load(Path(run) / "config.yaml"), "budget.name")
    if trained != budget:
        raise UserError(
            f"the teacher {run} was trained at budget={trained}, this run is of budget={budget}: train one with "
            f"budget={budget}, or use budget=own"
        )


def _check_devices(trainer: TrainerConfig) -> None:
    """Raise UserError if there are fewer devices than ``trainer`` needs."""
    devices, device, started = trainer.devices, pick_device(trainer.device), launched()
    if started > 1 and devices not in (1, started):
        raise UserError(f"trainer.devices={devices}, but torchrun has started {started} processes; make them equal")
    if device.type != "cpu" and not started:  # processes on CPUs may run on other machines than this one
        check_processes(devices, device, "trainer.devices")
    if trainer.sync_batchnorm and device.type == "cpu":
        raise UserError("torch's SyncBatchNorm works on GPUs only: leave trainer.sync_batchnorm=false on a CPU")
