"""A teacher: a network with trained weights from someone's file or from one of our finished runs, checked first."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dkl.checkpoint import read
from dkl.errors import UserError
from dkl.models.create import create_model
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


def _check_run(config: Mapping[str, Any], wanted: Wanted, run: Path) -> None:
    """Raise UserError where the run with ``config`` trained another network, or one for other images, than ``wanted``.

    A run on images of another size is refused too, though many networks would take them.
    """
    model, (channels, *size) = config["model"], config["data"]["shape"]
    trained: Wanted = {"num_classes": config["data"]["num_classes"], "in_chans": channels, "size": size}
    trained |= {key: model.get(key) for key in ("name", "mean", "std")}
    for key, asked in wanted.items():
        if not _alike(asked, trained[key]):
            had, mend = "null" if trained[key] is None else trained[key], MENDS.get(key, OTHER_DATA)
            raise UserError(f"the teacher's {key} is to be {asked}, but the run {run} has {had}: {mend}")


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
    _check_run(content["config"], wanted, run)
    return path, "average" if content.get("average") else "model"


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
    checkpoint: str | None = None,
    run: str | None = None,
    size: Sequence[int] | None = None,
) -> nn.Module:
    """The network ``name`` with trained weights, in eval mode and frozen, for images in [0, 1].

    ``size`` is their height and width, where they are to be checked. The weights are those in the file ``checkpoint``
    (the public teachers' ``ckpt_epoch_240.pth``, or anything that ``load_checkpoint`` takes), or those of the finished
    run in the folder ``run``: its average where it keeps one, else its last epoch's.

    Raises UserError where neither or both are given, where the file or a finished run is not there, where the weights
    are not of this network with ``num_classes``, where it does not take such images, and where the run normalised its
    images otherwise than by ``mean`` and ``std``. A file does not say how its network normalised.
    """
    if (checkpoint is None) == (run is None):
        raise UserError(
            "a teacher needs weights from one place: set task.teacher.checkpoint=FILE, or task.teacher.run=FOLDER of a "
            "finished run, such as dkl train recipe=kd_teacher makes"
        )
    model = create_model(name, num_classes, in_chans, mean, std).eval().requires_grad_(False)
    if run is not None:
        wanted: Wanted = {"name": name, "num_classes": num_classes, "in_chans": in_chans, "mean": mean, "std": std}
        path, key = _finished(Path(run), wanted | ({} if size is None else {"size": size}))
        load_checkpoint(model, path, key)
    else:
        load_checkpoint(model, str(checkpoint))
    if size is not None:
        _check_size(model, name, in_chans, size)
    return model
