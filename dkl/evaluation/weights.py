"""Which weights of a run are evaluated: its last epoch's, their average, or the best that selection kept.

Beside them stands what the field reports: the highest test accuracy of any epoch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dkl import checkpoint
from dkl.errors import UserError

CHOICES = ("last", "average", "best")


@dataclass(frozen=True)
class Weights:
    """The entry ``key`` of the checkpoint at ``path`` (None finds it), and the ``text`` that a record has for it.

    ``averaged`` says whether they are an average's.
    """

    path: Path
    key: str | None = None
    text: str = "as in the file"
    averaged: bool = False


class BestEpoch(NamedTuple):
    """The highest accuracy on test images after any epoch, and the first epoch that reached it."""

    accuracy: float
    epoch: int


def best_epoch(rows: list[dict[str, Any]], averaged: bool) -> BestEpoch | None:
    """The best of a run's ``rows``, of its last weights or of their average; None where any epoch was not tested."""
    key = "average_test_accuracy" if averaged else "test_accuracy"
    if any("test_accuracy" not in row for row in rows):
        return None
    tested = [BestEpoch(row[key], row["epoch"]) for row in rows if key in row]
    return max(tested, key=lambda best: best.accuracy, default=None)  # of equals the first


def _best(path: Path) -> Weights:
    content = checkpoint.read(path)
    kind = f"{content['weights']}, {content['attack']}"
    return Weights(path, "model", f"best epoch {content['epoch']} ({kind})", content["weights"] == "average")


def choose_weights(folder: Path, content: dict[str, Any], asked: str | None) -> Weights:
    """The weights ``asked`` for of the run in ``folder``, whose checkpoint holds ``content``.

    None is the average where the run keeps one, else the last. Raises UserError where the run has no such weights.
    """
    last, best, epoch = folder / "checkpoint.pt", folder / "best.pt", content["epoch"]
    has = {"last": True, "average": bool(content.get("average")), "best": best.is_file()}
    there = ", ".join(name for name in CHOICES if has[name])
    if asked is not None and not has.get(asked):
        raise UserError(f"weights={asked}: {folder} has {there}; weights is one of {', '.join(CHOICES)}")
    if asked == "best":
        return _best(best)
    if asked == "average" or (asked is None and has["average"]):
        return Weights(last, "average", f"average at epoch {epoch}", averaged=True)
    return Weights(last, "model", f"last epoch {epoch}")


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes and values, in hex: the same weights have the same, whatever file holds them."""
    content = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        content.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()
