"""A teacher: a network with weights that are published, in someone's file or a finished run of ours, checked first."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from dkl.checkpoint import read
from dkl.errors import UserError
from dkl.models.create import check_name, create_model
from dkl.models.foreign import load_checkpoint

Wanted = dict[str, Any]
"""What a teacher must be, by the name of its setting: ``name``, ``num_classes``, ``size``, ``mean`` and so on."""

OTHER_DATA = "train the teacher on the student's data"
NORMALISATION = "set task.teacher.mean and task.teacher.std as there: each network normalises its own input"
MENDS = {"name": "set task.teacher.name as there, or give another run", "mean": NORMALISATION, "std": NORMALISATION}


def fingerprint(model: nn.Module) -> str:
    """Hash of the names, kinds and values of everything in ``model``'s state_dict, in hex."""
    content = hashlib.sha256()
    for key, value in model.state_dict().items():
        content.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def _alike(asked: Any, trained: Any) -> bool:
    """Whether two settings agree; sequences of numbers to 1e-6."""
    if isinstance(asked, Sequence) and isinstance(trained, Sequence) and not isinstance(asked, str):
        return len(asked) == len(trained) and all(abs(a - b) <= 1e-6 for a, b in zip(asked, trained, strict=True))
    return bool(asked == trained)


def _check(wanted: Wanted, trained: Wanted, whose: str) -> None:
    """Raise UserError where ``whose`` ``trained`` network is another, or one for other images, than ``wanted``.

    Training on images of another size is refused too, though many networks would take them.
    """
    for key, asked in wanted.items():
        if not _alike(asked, trained[key]):
            had, mend = "null" if trained[key] is None else trained[key], MENDS.get(key, OTHER_DATA)
            raise UserError(f"the teacher's {key} is to be {asked}, but {whose} has {had}: {mend}")


def _finished(run: Path, wanted: Wanted) -> tuple[Path, str]:
    """The checkpoint of the finished run in ``run``, and the entry to take: its average where it keeps one."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise UserError(f"task.teacher.run={run} is no run's folder with a checkpoint.pt; dkl train prints its name")
    content = read(path)
    if not isinstance(content, Mapping) or not {"epoch", "config", "model"} <= content.keys():
        raise UserError(f"{path} is not from dkl train; give it as task.teacher.checkpoint={path}")
    epochs = content["config"]["trainer"]["epochs"]
    if content["epoch"] < epochs:
        raise UserError(f"the teacher {run} has trained {content['epoch']} of {epochs} epochs: finish it first")
    model, data = content["config"]["model"], content["config"]["data"]
    trained = {"num_classes": data["num_classes"], "in_chans": data["shape"][0], "size": data["shape"][1:]}
    _check(wanted, trained | {key: model.get(key) for key in ("name", "mean", "std")}, f"the run {run}")
    return path, "average" if content.get("average") else "model"


def _published(wanted: Wanted, checkpoint: str | None) -> nn.Module:
    """The network that ``wanted`` names with the weights that timm publishes under that name.

    They come from the file ``checkpoint``, a copy of them in any format that timm reads, or are fetched and kept by
    its hub. Either way they are for the images they were trained on.
    """
    name = wanted["name"]
    check_name(name)
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        close = timm.list_pretrained(f"{name.partition('.')[0]}*")
        hint = f"published are {', '.join(close)}" if close else "timm.list_pretrained() lists those that are"
        raise UserError(f"no weights are published for task.teacher.name={name}; {hint}")
    channels, *size = known.input_size
    trained: Wanted = {"name": name, "num_classes": known.num_classes, "in_chans": channels, "size": size}
    _check(wanted, trained | {"mean": list(known.mean), "std": list(known.std)}, f"training of {name}")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint at {checkpoint}")
    where: Wanted = {} if checkpoint is None else {"pretrained_cfg_overlay": {"file": checkpoint}}
    asked = {key: value for key, value in wanted.items() if key != "size"}
    try:
        return create_model(**asked, pretrained=True, **where)
    except (EOFError, LookupError, OSError, RuntimeError, ValueError, SafetensorError, struct.error) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        if checkpoint is not None:
            raise UserError(f"{checkpoint} does not hold the published weights of {name}: {why}") from None
        source = known.url or f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
        raise UserError(
            f"the weights of {name} could not be fetched ({why}): bring {source} here and add "
            "task.teacher.checkpoint=FILE, where it lies"
        ) from None


def _check_size(model: nn.Module, name: str, in_chans: int, size: Sequence[int]) -> None:
    """Raise UserError where ``model`` does not take such images."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, in_chans, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"the teacher {name} does not take images {[in_chans, *size]}: {error}") from None


def create_teacher(
    name: str,
    num_classes: int,
    in_chans: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    run: str | None = None,
    size: Sequence[int] | None = None,
) -> nn.Module:
    """The network ``name`` with trained weights, in eval mode and frozen, for images in [0, 1].

    ``size`` is their height and width, where they are to be checked. The weights are those that timm publishes for
    ``name`` (``pretrained``; fetched once, or a copy in the file ``checkpoint``), those of anyone in the file
    ``checkpoint`` (the public teachers' ``ckpt_epoch_240.pth``, torchvision's, or anything that ``load_checkpoint``
    takes), or those of the finished run in the folder ``run``: its average where it keeps one, else its last epoch's.

    Raises UserError where not one of these is given, where the file or a finished run is not there or the weights
    cannot be fetched, where they are not of this network with ``num_classes``, where it does not take such images, and
    where published weights or the run were trained on images of another size or normalised otherwise than by ``mean``
    and ``std``. A file does not say how its network normalised.
    """
    if (run is None) != bool(pretrained or checkpoint):
        raise UserError(
            "a teacher needs weights from one place: set task.teacher.checkpoint=FILE, task.teacher.pretrained=true "
            "for those timm publishes, or task.teacher.run=FOLDER of a finished run, such as dkl train "
            "recipe=kd_teacher makes"
        )
    wanted: Wanted = {"name": name, "num_classes": num_classes, "in_chans": in_chans, "mean": mean, "std": std}
    checked = wanted | ({} if size is None else {"size": size})
    if pretrained:
        model = _published(checked, checkpoint)
    else:
        model = create_model(**wanted)
        path, key = (str(checkpoint), None) if run is None else _finished(Path(run), checked)
        load_checkpoint(model, path, key)
    model.eval().requires_grad_(False)
    if size is not None:
        _check_size(model, name, in_chans, size)
    return model
