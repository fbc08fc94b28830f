"""Which weights of a run are evaluated: its last epoch's, their average, or the best that selection kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dkl import checkpoint
from dkl.errors import UserError

CHOICES = ("last", "average", "best")


@dataclass(frozen=True)
class Weights:
    """The entry ``key`` of the checkpoint at ``path`` (None finds it), and the ``text`` that a record has for it."""

    path: Path
    key: str | None = None
    text: str = "as in the file"


def _best(path: Path) -> Weights:
    content = checkpoint.read(path)
    kind = f"{content['weights']}, {content['attack']}"
    return Weights(path, "model", f"best epoch {content['epoch']} ({kind})")


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
        return Weights(last, "average", f"average at epoch {epoch}")
    return Weights(last, "model", f"last epoch {epoch}")
