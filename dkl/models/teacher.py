"""Distillation teachers: a network with trained weights, checked before training starts.

The weights are published by timm, in a file, or in the folder of a finished run of ``dkl train``.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from zipfile import is_zipfile

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from dkl.errors import UserError, first_line
from dkl.models.create import check_name, check_normalization, create_model
from dkl.models.foreign_checkpoints import check_finite, load_checkpoint
from dkl.models.sources import CREATE, Request, Source, known_images, resolve
from dkl.storage.checkpoint import READING_ERRORS, read
from dkl.storage.files import damage
from dkl.validation import CLASSES, MEAN, SIDE, STD

Settings = dict[str, Any]
"""Properties of a network by the names of their settings: ``name``, ``num_classes``, ``size``, ``mean`` and so on."""

HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
"""Place where timm finds weights without a URL of their own."""

OTHER_DATA = "train the teacher on the student's data"
NORMALIZATION = "set task.teacher.mean and task.teacher.std to its values; each network normalizes its own input"
FIXES = {"name": "set task.teacher.name to that, or give another run", "mean": NORMALIZATION, "std": NORMALIZATION}


def fingerprint(model: nn.Module) -> str:
    """Hash of names, dtypes, shapes and values of ``model``'s state_dict, in hex."""
    content = hashlib.sha256()
    for key, value in model.state_dict().items():
        content.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def _check_settings(wanted: Settings, trained: Settings, source: str) -> None:
    """Raise UserError if the ``trained`` network of ``source`` differs from ``wanted``; numbers in lists by over 1e-6.

    Training on images of another size is refused too, although many networks accept them.
    """
    for key, value in wanted.items():
        other = trained[key]
        equal = value == other
        if isinstance(value, Sequence) and isinstance(other, Sequence) and not isinstance(value, str):
            equal = len(value) == len(other) and all(abs(a - b) <= 1e-6 for a, b in zip(value, other, strict=True))
        if not equal:
            asked, has = ("null" if setting is None else setting for setting in (value, other))
            raise UserError(f"the teacher needs {key}={asked}, but {source} has {has}: {FIXES.get(key, OTHER_DATA)}")


def _finished_run(run: Path, wanted: Settings) -> tuple[Path, str]:
    """The checkpoint of the finished run in folder ``run``, and the entry to load: its average if it has one."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise UserError(f"task.teacher.run={run} has no checkpoint.pt: give the folder that dkl train printed")
    content = read(path)
    if not isinstance(content, Mapping) or not {"epoch", "config", "model"} <= content.keys():
        raise UserError(f"{path} is not from dkl train: use task.teacher.checkpoint={path} instead")
    epochs = content["config"]["trainer"]["epochs"]
    if content["epoch"] < epochs:
        raise UserError(f"the teacher {run} has trained {content['epoch']} of {epochs} epochs: finish it first")
    model, data = content["config"]["model"], content["config"]["data"]
    trained = {"num_classes": data["num_classes"], "in_chans": data["shape"][0], "size": data["shape"][1:]}
    _check_settings(wanted, trained | {key: model.get(key) for key in ("name", "mean", "std")}, f"the run {run}")
    return path, "average" if content.get("average") else "model"


def _published(wanted: Settings, checkpoint: str | None) -> nn.Module:
    """The network that ``wanted`` names, with the weights that timm publishes under that name.

    They are read from the file ``checkpoint``, a copy in any format that timm reads, or downloaded and cached by timm.
    In both cases ``wanted`` must match the images that they were trained on.
    """
    name = wanted["name"]
    check_name(name)
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        close = timm.list_pretrained(f"{name.partition('.')[0]}*")
        hint = f"published are {', '.join(close)}" if close else "timm.list_pretrained() lists the names that have some"
        raise UserError(f"timm publishes no weights for task.teacher.name={name}; {hint}")
    channels, *size = known.input_size
    trained: Settings = {"name": name, "num_classes": known.num_classes, "in_chans": channels, "size": size}
    trained |= {"mean": list(known.mean), "std": list(known.std)}
    _check_settings(wanted, trained, f"the published {name}")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no file task.teacher.checkpoint={checkpoint}; check the path")
    if checkpoint is not None and is_zipfile(checkpoint) and (why := damage(Path(checkpoint))):
        raise UserError(f"{checkpoint} is damaged ({why}): copy it again")
    url = known.url or f"{HUB}/{known.hf_hub_id}/resolve/main/model.safetensors"
    fix = f"copy {url} to this machine and add task.teacher.checkpoint=FILE"
    overlay: Settings = {} if checkpoint is None else {"pretrained_cfg_overlay": {"file": checkpoint}}
    settings = {key: value for key, value in wanted.items() if key != "size"}
    try:
        model = create_model(**settings, pretrained=True, **overlay)
    except (UserError, SafetensorError, *READING_ERRORS) as error:  # of missing, damaged or unfitting weights
        reason = first_line(error) or type(error).__name__
        if checkpoint is not None:
            raise UserError(f"{checkpoint} does not hold the published weights of {name}: {reason}") from None
        why = reason.partition(";")[0]  # the fixes for ``model=`` do not fit a teacher
        raise UserError(f"the weights of {name} could not be downloaded ({why}): {fix}") from None
    check_finite(model.state_dict(), checkpoint or f"the published {name}")
    return model


def _check_size(model: nn.Module, name: str, in_chans: int, size: Sequence[int]) -> None:
    """Raise UserError if ``model`` does not take images of this size."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, in_chans, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = first_line(error) or type(error).__name__
        raise UserError(
            f"the teacher {name} does not take images {[in_chans, *size]}: {reason}; choose another teacher or data"
        ) from None


def _source(wanted: Settings, checkpoint: str | None) -> Source:
    """The network ``scheme:…`` of somebody else. Which of RobustBench's datasets it is for follows from the classes."""
    classes, size = wanted["num_classes"], wanted.get("size") or (32, 32)
    request = Request(
        num_classes=classes,
        shape=(wanted["in_chans"], *size),
        dataset={10: "cifar10", 100: "cifar100", 1000: "imagenet"}.get(classes, ""),
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    images = known_images(wanted["name"], request.dataset) if wanted.get("size") else None
    if images and not (checkpoint and wanted["name"].startswith("timm:")):  # anyone may train timm's networks anew
        trained: Settings = {"in_chans": images.shape[0], "size": list(images.shape[1:])}
        _check_settings({key: wanted[key] for key in trained}, trained, wanted["name"])
    source = resolve(wanted["name"], request)
    if source.model.pop("_target_") != CREATE:
        raise UserError(
            f"task.teacher.name={wanted['name']} is your own code: set task.teacher._target_ to a function that "
            "returns the trained network"
        )
    given = {key: wanted[key] for key in ("mean", "std") if wanted[key] is not None}  # null: as its publisher says
    _check_settings(given, {"mean": None, "std": None} | source.model, wanted["name"])
    return source


def untrained_teacher(
    name: str,
    num_classes: int,
    in_chans: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
) -> nn.Module:
    """The network of ``create_teacher`` without its weights, for estimates and checks before they exist."""
    wanted: Settings = {"name": name, "num_classes": num_classes, "in_chans": in_chans, "mean": mean, "std": std}
    if ":" in name:
        wanted = _source(wanted | {"size": size}, "untrained").model
    return create_model(**{key: value for key, value in wanted.items() if key != "pretrained"})


def create_teacher(
    name: str,
    num_classes: Annotated[int, CLASSES],
    in_chans: Annotated[int, SIDE] = 3,
    mean: Annotated[Sequence[float] | None, MEAN] = None,
    std: Annotated[Sequence[float] | None, STD] = None,
    *,
    title: str | None = None,
    pretrained: bool = False,
    checkpoint: str | None = None,
    run: str | None = None,
    size: Annotated[Sequence[int] | None, SIDE] = None,
) -> nn.Module:
    """Build the network ``name`` with trained weights, in eval mode and frozen, for images in [0, 1].

    The weights come from exactly one place: ``pretrained``, those that timm publishes for ``name`` (downloaded once, or
    a copy in the file ``checkpoint``); ``checkpoint`` alone, any file that ``load_checkpoint`` takes, such as the
    public teachers' ``ckpt_epoch_240.pth``; or ``run``, the folder of a finished run, whose average is loaded if it
    has one. ``size`` is the height and width of the images; if given, it is checked. ``title`` is the name printed in
    tables and has no effect here. A name with a colon is anyone's network with its weights and normalization,
    downloaded once or in the file ``checkpoint``: ``robustbench:NAME``, ``official:NAME``, ``hf-hub:USER/MODEL``,
    ``local-dir:FOLDER`` or ``timm:NAME``.

    Raises UserError if not exactly one place is given, if the weights are missing or do not fit the network, or if a
    run or published weights were trained on images of another size or with another normalization. A file does not
    store its normalization, so it is not checked.
    """
    foreign = ":" in name
    # pretrained and checkpoint may go together: the file is then a copy of the published weights.
    if (run is None) != bool(pretrained or checkpoint or foreign):
        raise UserError(
            "a teacher needs weights from one place: set task.teacher.checkpoint=FILE, task.teacher.pretrained=true "
            "for those that timm publishes, or task.teacher.run=FOLDER of a finished run, such as dkl train "
            "recipe=kd_teacher makes"
        )
    if not pretrained:  # published weights have their own channels and normalization, which are compared
        check_normalization(mean, std, in_chans, "task.teacher")
    wanted: Settings = {"name": name, "num_classes": num_classes, "in_chans": in_chans, "mean": mean, "std": std}
    checked = wanted | ({} if size is None else {"size": size})
    if foreign:
        source = _source(checked, checkpoint)
        model = create_model(**source.model)
        if source.weights is not None:
            load_checkpoint(model, source.weights)
    elif pretrained:
        model = _published(checked, checkpoint)
    else:
        model = create_model(**wanted)
        path, key = (str(checkpoint), None) if run is None else _finished_run(Path(run), checked)
        load_checkpoint(model, path, key)
    model.eval().requires_grad_(False)
    if size is not None:
        _check_size(model, name, in_chans, size)
    return model
