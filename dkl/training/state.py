"""The state of a run, with which it continues as if it had never stopped, and its metrics.

There is one checkpoint per run, which is always replaced as a whole.
"""

import hashlib
import io
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich.style  # noqa: F401  # it draws from Python's generator when it is imported, so before any seed
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import keystr, tree_flatten_with_path

from dkl.config import changed_setting
from dkl.errors import UserError, first_line
from dkl.runtime import device as device_rng
from dkl.runtime.distributed import from_first, gather, rank, world
from dkl.storage import checkpoint
from dkl.storage.files import digest, write_atomically, write_rows, write_text
from dkl.tasks import Task
from dkl.training.averaging import Average

MetricsRow = dict[str, Any]
"""What an epoch measured, by name."""

CHECKPOINT, BEST, METRICS = "checkpoint.pt", "best.pt", "metrics.jsonl"
"""Files in a run's folder: its state, the weights of the best epoch, and the metrics of every epoch."""

OBJECTIVES = ("best_robust_accuracy", "average_test_miou", "test_miou", "average_test_accuracy", "test_accuracy")
"""Metrics that a search may maximize; the first that a run has counts."""

VERSION = 3
READABLE = (2, 3)
"""Versions of checkpoints that can be continued; those of version 2 end with an epoch."""

BROKEN = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors of loading a checkpoint whose parts are missing or of another form."""


def write_metrics(rows: Sequence[MetricsRow], folder: Path) -> None:
    """Write one line per epoch to ``metrics.jsonl`` and ``metrics.csv``, atomically."""
    write_rows(folder / "metrics.csv", rows)
    write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def objective(folder: Path) -> float | None:
    """Return what a search maximizes: robust accuracy on held-out images after the best epoch, or a test metric.

    Without ``selection`` it is the mean IoU, or without masks the test accuracy, at the end, of the averaged weights if
    there are some; so hyperparameters are chosen on the test set. None if the run's files are on another machine.
    """
    path = folder / METRICS
    if not path.exists():  # of several machines, only the one with process 0 writes files
        return None
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return next((last[metric] for metric in OBJECTIVES if metric in last), None)


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, the latter on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_process(seed: int, number: int, epoch: int = 0) -> None:
    """Seed the global generators of process ``number``, so that networks with random parts differ by process.

    DropPath and Dropout draw from them while training. The first process keeps its generators.
    """
    if number:
        seed_everything(int(digest([seed, number, epoch]), 16))


CPU = torch.device("cpu")


def rng_state(device: torch.device = CPU) -> dict[str, Any]:
    """Return the state of every global random generator of this process, as tensors and plain values."""
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    keys, position = state["state"]["key"], state["state"]["pos"]
    # Checkpoints hold tensors and plain values only, because they are read with weights_only=True. NumPy's words become
    # int64, since torch supports uint32 only in part.
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), position, state["has_gauss"], state["gauss"]),
        "torch": torch.get_rng_state(),
        "device": device_rng.rng_state(device),
    }


def set_rng_state(state: dict[str, Any], device: torch.device = CPU) -> None:
    """Restore what ``rng_state`` returned; the generator of ``device`` only if it was of the same kind."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    device_rng.set_rng_state(state.get("device", {}), device)


@dataclass
class RunState:
    """What training changes: task, model, optimizer and average, and the metrics ``rows`` of the epochs done.

    ``config`` is the resolved configuration. ``data_sha256`` is a fingerprint of the training images. ``best`` is the
    highest robust accuracy that selection has measured, -1 before the first. ``partial`` is what was done of the next
    epoch, empty between epochs: the number of the ``step`` reached, and the metrics' ``row`` if only measurements were
    left, else their sums so far per process in ``processes``. ``rng`` has the global generators' states of every
    process, as ``collect_rng`` found them. ``devices`` are the numbers of devices that the run has used. ``sources``
    has the hashes of the user's own files: classes by import path, first weights by key. ``saved_at`` is when the state
    was saved, or made, on the clock ``time.monotonic``.
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
    partial: dict[str, Any] = field(default_factory=dict)
    rng: list[dict[str, Any]] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return next(self.model.parameters()).device

    def collect_rng(self) -> None:
        """Note the generators of all processes, for ``save``; all of them call this together."""
        self.rng = gather(rng_state(self.device))

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
            "rng": self.rng[0] if self.rng else rng_state(self.device),
            "config": self.config,
            "data_sha256": self.data_sha256,
            "best": self.best,
            "devices": self.devices,
            "sources": self.sources,
        }
        if len(self.rng) > 1:
            content["rng_of_others"] = self.rng[1:]
        if self.partial:
            content["partial"] = self.partial
        if self.average is not None:
            content |= {"average": self.average.state_dict(), "average_updated": self.average.updated}
        checkpoint.save(path, content)
        self.saved_at = time.monotonic()

    def load(self, folder: Path) -> None:
        """Continue from the checkpoint in ``folder`` of process 0, if any, in all processes.

        Their folders may be on machines that share none. Raises UserError as ``restore`` does, or if the processes
        would not start from the same state.
        """
        path = folder / CHECKPOINT
        if rank() == 0:
            for part in folder.glob(".*.part"):  # of a process killed while writing
                part.unlink(missing_ok=True)
        _collect_files(folder)
        content = from_first(checkpoint.read(path) if rank() == 0 and path.exists() else None)
        if content is not None:
            self.restore(content, path)
        if world() == 1:
            return
        # Gradients of different weights would be summed without any error.
        fingerprints = gather(self.fingerprint())
        if other := next((number for number, one in enumerate(fingerprints) if one != fingerprints[0]), 0):
            raise UserError(
                f"process {other} would train other weights or other images than process 0: give every machine the "
                "same versions of dkl and torch, the same images and the same teacher, best in folders that all share"
            )

    def fingerprint(self) -> str:
        """A hash of everything that the processes of a run must have in common before they take a step together."""
        parts = {"model": self.model.state_dict(), "task": self.task.state_dict()}
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        content = hashlib.sha256(f"{self.epoch} {self.data_sha256}".encode())
        for path, value in tree_flatten_with_path(parts)[0]:
            content.update(keystr(path).encode())
            if isinstance(value, torch.Tensor):
                content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                content.update(repr(value).encode())
        return content.hexdigest()

    def restore(self, content: Any, path: Path) -> None:
        """Restore the run from the ``content`` of the checkpoint at ``path``.

        Raises UserError if this version of dkl did not write it, if it is of another run or incomplete, or if the
        training images have changed since.
        """
        if not isinstance(content, dict) or content.get("version") not in READABLE:
            raise UserError(
                f"{path} is not a checkpoint of this version of dkl; move the run's folder away to start again"
            )
        try:
            if changed := changed_setting(content["config"], self.config):
                raise UserError(
                    f"{path} was trained with {changed}, so it is of another run: move {path.parent} away to start "
                    "again"
                )
            trained = content.get("sources", {})
            if edited := [name for name, now in self.sources.items() if trained.get(name, now) != now]:
                raise UserError(
                    f"{path.parent} was trained with another file of {edited[0]}: move the folder away to start again, "
                    "or restore the file"
                )
            if content["data_sha256"] != self.data_sha256:
                raise UserError(
                    f"{path.parent} was trained on other images; restore them, or move it away to start again"
                )
            if [row["epoch"] for row in content["rows"]] != list(range(1, content["epoch"] + 1)):
                raise UserError(
                    f"{path} has the metrics of {len(content['rows'])} epochs, but is of epoch {content['epoch']}: "
                    f"move {path.parent} away to start again"
                )
            self._load(content)
        except BROKEN as error:
            reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
            raise UserError(
                f"{path} is not a complete checkpoint of this run ({reason}): move {path.parent} away to start again"
            ) from None

    def _load(self, content: Mapping[str, Any]) -> None:
        # In place: the optimizer and the task hold references to these parameters.
        self.model.load_state_dict(content["model"])
        self.task.load_state_dict(content["task"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(content["average"], updated=content.get("average_updated", True))
        self.epoch, self.rows, self.best = content["epoch"], content["rows"], content["best"]
        self.partial, self.devices = content.get("partial", {}), list(content.get("devices", []))
        # Last, because nothing after it may draw random numbers. A process that was not there before starts anew.
        own = [content["rng"], *content.get("rng_of_others", [])][rank() : rank() + 1]
        if own:
            set_rng_state(own[0], self.device)
        else:
            seed_process(self.config["seed"], rank(), self.epoch)


def _collect_files(folder: Path) -> None:
    """Give process 0 the run's files of the process whose ``folder`` has trained the most epochs.

    The machines may share no folder, and when torchrun restarts them, process 0 may be on another one.
    """
    metrics = folder / METRICS
    done = len(metrics.read_text("utf-8").splitlines()) if metrics.exists() else 0
    epochs = gather(done if (folder / CHECKPOINT).exists() else -1)
    source = epochs.index(max(epochs))
    if epochs[source] <= epochs[0]:
        return
    for name in (BEST, CHECKPOINT, METRICS):  # the metrics last: their length says that the others are complete
        path = folder / name
        content = from_first(path.read_bytes() if rank() == source and path.exists() else None, source)
        if content is not None and rank() == 0:
            write_atomically(path, partial(shutil.copyfileobj, io.BytesIO(content)))
