"""The state of a run, with which it continues as if it had never stopped.

There is one checkpoint per run. It is replaced as a whole after every epoch.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from dkl import checkpoint
from dkl.errors import UserError
from dkl.tasks import Task
from dkl.training.averaging import Average
from dkl.training.metrics import MetricsRow

VERSION = 2


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of every global random generator, as tensors and plain values."""
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    keys, position = state["state"]["key"], state["state"]["pos"]
    # Checkpoints hold tensors and plain values only, because they are read with weights_only=True. NumPy's words become
    # int64, since torch supports uint32 only in part.
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), position, state["has_gauss"], state["gauss"]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what ``rng_state`` returned; CUDA's generators only if there are as many devices as before."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])


@dataclass
class RunState:
    """What training changes: task, model, optimizer and average, and the metrics ``rows`` of the epochs done.

    ``config`` is the resolved configuration. ``data_sha256`` is a fingerprint of the training images. ``best`` is the
    highest robust accuracy that selection has measured, -1 before the first.
    """

    task: Task
    model: nn.Module
    optimizer: Optimizer
    config: dict[str, Any]
    data_sha256: str
    average: Average | None = None
    epoch: int = 0
    rows: list[MetricsRow] = field(default_factory=list)
    best: float = -1.0

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate: with the averaged weights if the run keeps an average."""
        return self.model if self.average is None else self.average.model

    def save(self, path: Path) -> None:
        """Write everything to ``path`` atomically."""
        content = {
            "version": VERSION,
            "model": self.model.state_dict(),
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "rows": self.rows,
            "rng": rng_state(),
            "config": self.config,
            "data_sha256": self.data_sha256,
            "best": self.best,
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        checkpoint.save(path, content)

    def load(self, path: Path) -> None:
        """Restore the run saved at ``path``.

        Raises UserError if this version of dkl did not write it, or if the training images have changed since.
        """
        content = checkpoint.read(path)
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise UserError(
                f"{path} is not a checkpoint of this version of dkl; move the run's folder away to start again"
            )
        if content["data_sha256"] != self.data_sha256:
            raise UserError(f"{path.parent} was trained on other images; restore them, or move it away to start again")
        # In place: the optimizer and the task hold references to these parameters.
        self.model.load_state_dict(content["model"])
        self.task.load_state_dict(content["task"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.epoch, self.rows, self.best = content["epoch"], content["rows"], content["best"]
        set_rng_state(content["rng"])  # last, because nothing after it may draw random numbers
