"""The weights of a run to evaluate: those of the last epoch, their average, or the best that selection kept.

Also the best test accuracy of any epoch, which the field often reports.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dkl.config import WEIGHTS, changed_setting
from dkl.errors import UserError
from dkl.storage import checkpoint


@dataclass(frozen=True)
class Weights:
    """The weights under ``key`` of the checkpoint at ``path``; a None key is found on loading.

    ``text`` describes them in the record, and ``averaged`` is true for a weight average.
    """

    path: Path
    key: str | None = None
    text: str = "as in the file"
    averaged: bool = False


class BestEpoch(NamedTuple):
    """The highest test accuracy (mean IoU with masks) after any epoch, and the first epoch that reached it."""

    accuracy: float
    epoch: int


def best_epoch(rows: Sequence[Mapping[str, Any]], averaged: bool) -> BestEpoch | None:
    """Find the best epoch in a run's metrics, of the last weights or of their average; None if an epoch has no test."""
    metric = "test_miou" if any("test_miou" in row for row in rows) else "test_accuracy"
    key = f"average_{metric}" if averaged else metric
    # An epoch without a test accuracy may have been the best.
    if any("test_accuracy" not in row for row in rows):
        return None
    tested = [BestEpoch(row[key], row["epoch"]) for row in rows if key in row]
    return max(tested, key=lambda best: best.accuracy, default=None)  # the first of equals


def _best_weights(path: Path, config: Mapping[str, Any]) -> Weights:
    content = checkpoint.read(path)
    if not isinstance(content, Mapping) or not {"weights", "attack", "epoch", "model", "config"} <= content.keys():
        raise UserError(f"{path} is not from dkl train: evaluate other weights by weights=last, or train the run again")
    if changed := changed_setting(content["config"], config):
        raise UserError(f"{path} was trained with {changed}, so it is of another run: evaluate weights=last")
    kind = f"{content['weights']}, {content['attack']}"
    return Weights(path, "model", f"best epoch {content['epoch']} ({kind})", content["weights"] == "average")


def choose_weights(folder: Path, content: Mapping[str, Any], asked: str | None) -> Weights:
    """Return the weights ``asked`` for of the run in ``folder``, whose checkpoint holds ``content``.

    None means the average if the run keeps one, else the last weights. Raises UserError if the run has no such weights.
    """
    last, best, epoch = folder / "checkpoint.pt", folder / "best.pt", content["epoch"]
    exists = {"last": True, "average": bool(content.get("average")), "best": best.is_file()}
    if asked is not None and not exists.get(asked):
        available = ", ".join(name for name in WEIGHTS if exists[name])
        raise UserError(f"weights={asked} is not one of the weights in {folder}; choose one of: {available}")
    if asked == "best":
        return _best_weights(best, content["config"])
    if asked == "average" or (asked is None and exists["average"]):
        return Weights(last, "average", f"average at epoch {epoch}", averaged=True)
    return Weights(last, "model", f"last epoch {epoch}")


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash the names, shapes and values of a state dict, in hex; independent of the file that held it."""
    content = hashlib.sha256()
    # Sorted, because a checkpoint may list the same weights in another order.
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        content.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
