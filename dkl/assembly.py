"""From a configuration to the objects of a run, with every mistake found before any work is done."""

import os
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dkl.config import Precision, check, model_name
from dkl.data import Augment, Images, ImageSet, Loader, Synthetic, make_loader
from dkl.distributed import launched, rank, world
from dkl.errors import UserError
from dkl.loggers import Logger
from dkl.tasks import Task


def _instantiate(cfg: Any, key: str, **kwargs: Any) -> Any:
    """Hydra's ``instantiate``, with a mistake of the user's shown as one."""
    try:
        return instantiate(cfg, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause is None or isinstance(cause, ValueError | TypeError):
            raise UserError(f"{key}: {cause or error}") from None
        raise


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of a configuration, in float32, on the current default device."""
    return _instantiate(cfg.model, "model")


def build_task(cfg: DictConfig, model: nn.Module) -> Task:
    """The task of a configuration around ``model``, with its loss and attack where it takes them."""
    return _instantiate(cfg.task, "task", model=model)


def build_averaging(cfg: DictConfig) -> Any:
    """The rule by which weights are averaged, or None."""
    return _instantiate(cfg.averaging, "averaging") if cfg.averaging else None


def build_logger(cfg: Any) -> Logger:
    """Where the first process reports beside its files; nowhere where ``cfg`` is empty, and in the others."""
    return _instantiate(cfg, "logger") if cfg and rank() == 0 else Logger()


def load_data(cfg: DictConfig) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a ``data`` configuration, cut to size. Raises UserError where they do not fit it."""
    train, test = _instantiate(cfg.source, "data.source")
    for split, images in (("training", train), ("test", test)):
        if images.shape != tuple(cfg.shape):
            got = list(images.shape)
            raise UserError(
                f"{cfg.name}: {split} images are {got}, not data.shape={list(cfg.shape)}; set data.shape={got}"
            )
        low, high = int(images.labels.min()), int(images.labels.max())
        if low < 0 or high >= cfg.num_classes:
            raise UserError(
                f"{cfg.name}: {split} labels run from {low} to {high}, but data.num_classes={cfg.num_classes}; "
                f"set data.num_classes={high + 1} or number the labels from 0"
            )
    if OmegaConf.select(cfg, "synthetic.files") and not isinstance(train, Images):
        raise UserError(f"{cfg.name}: data.synthetic.files go with images in memory only; set data.synthetic.files=[]")
    return train.balanced(cfg.train_size), test.balanced(cfg.test_size)


def load_synthetic(cfg: DictConfig) -> Synthetic | None:
    """Synthetic images of a ``data`` configuration, mapped; None without. Raises UserError where they do not fit it."""
    files, fraction = list(cfg.synthetic.files), cfg.synthetic.fraction
    if not 0 <= fraction < 1 or bool(files) != (fraction > 0):
        raise UserError(
            f"data.synthetic.files names {len(files)} files and data.synthetic.fraction is {fraction}: give files and "
            "a fraction between 0 and 1, or neither and 0"
        )
    return Synthetic(files, shape=list(cfg.shape), num_classes=cfg.num_classes) if files else None


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises UserError on a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"device={name} is not usable here ({why}); use auto, cpu or cuda") from None
    return torch.device(name)


def make_batches(
    cfg: DictConfig,
    images: ImageSet,
    device: torch.device,
    *,
    training: bool,
    synthetic: Synthetic | None = None,
    epoch_size: int | None = None,
) -> Loader:
    """This process's share of batches of ``images``: as training draws them, or in order and whole for validation.

    With ``synthetic`` ones an epoch is as long as ``epoch_size`` images, the real ones before any was held out.
    """
    channels_last, mixing = cfg.trainer.channels_last, {}
    if synthetic is not None:
        mixing = {"synthetic": synthetic, "fraction": cfg.data.synthetic.fraction, "epoch_size": epoch_size}
    return make_loader(
        images,
        cfg.trainer.batch_size if training else cfg.evaluation.batch_size,
        device=device,
        augment=Augment(**cfg.data.augment) if training else None,
        shuffle=training,
        drop_last=training and cfg.trainer.drop_last,
        seed=cfg.seed,
        dtype=torch.float64 if cfg.trainer.precision is Precision.float64 else torch.float32,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        rank=rank(),
        world=world(),
        workers=min(cfg.trainer.workers, _cores()),
        **mixing,
    )


def _cores() -> int:
    """Processor cores that this process may use: more workers than that only wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_model(cfg: DictConfig) -> nn.Module:
    """The model without values. Raises UserError where it does not turn the data's images into a logit a class."""
    shape, name = [2, *cfg.data.shape], model_name(cfg.model)
    with torch.device("meta"), torch.no_grad():
        model = build_model(cfg).eval()
        try:
            logits = model(torch.empty(shape))
        except NotImplementedError:  # an operation without a meta kernel says nothing of the model
            return model
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f"{name} does not take images {shape[1:]} of {cfg.data.name}: {error}") from None
    if tuple(logits.shape) != (2, cfg.data.num_classes):
        raise UserError(f"{name} gives {tuple(logits.shape)} for 2 images, not (2, {cfg.data.num_classes})")
    return model


def _check_teacher(cfg: DictConfig) -> None:
    """Raise UserError where a run of the paper's rows would be taught by a run of another budget."""
    run, checkpoint = (OmegaConf.select(cfg, f"task.teacher.{key}") for key in ("run", "checkpoint"))
    run = run or (Path(checkpoint).parent if checkpoint else None)
    if not run or cfg.budget.name == "own" or not (Path(run) / "config.yaml").is_file():
        return
    budget = OmegaConf.select(OmegaConf.load(Path(run) / "config.yaml"), "budget.name")
    if budget != cfg.budget.name:
        raise UserError(
            f"the teacher {run} was trained at budget={budget}, this run is of budget={cfg.budget.name}: train one "
            f"with budget={cfg.budget.name}, or use budget=own"
        )


def _check_devices(cfg: DictConfig) -> None:
    """Raise UserError where as many devices as asked for are not there."""
    devices, device, started = cfg.trainer.devices, pick_device(cfg.trainer.device), launched()
    if started > 1 and devices not in (1, started):
        raise UserError(f"trainer.devices={devices}, but torchrun has started {started} processes; make them equal")
    if device.type == "cuda" and not started and devices > torch.cuda.device_count():
        raise UserError(f"trainer.devices={devices}, but there are {torch.cuda.device_count()} GPUs here")
    if cfg.trainer.sync_batchnorm and device.type != "cuda":
        raise UserError("torch's SyncBatchNorm works on GPUs only: leave trainer.sync_batchnorm=false on a CPU")


def preflight(cfg: DictConfig) -> None:
    """Raise UserError on any mistake that can be found without data, a device or time."""
    check(cfg)
    pick_device(cfg.trainer.device)
    _check_teacher(cfg)
    for part in ("loss", "attack"):
        if cfg[part] and part not in cfg.task:
            raise UserError(f"{cfg.task._target_} takes no {part}: add {part}=none, or choose another task")
    Augment(**cfg.data.augment).check(tuple(cfg.data.shape))
    model = _check_model(cfg)
    build_task(cfg, nn.Linear(1, 1) if cfg.attack else model)  # an attack's noise needs a device that computes
    build_averaging(cfg)
    _check_devices(cfg)
    build_logger(cfg.logger)
