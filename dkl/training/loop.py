"""The one training loop. It knows batches, an optimiser and a task, and nothing of losses or attacks."""

import time
from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Optimizer

from dkl.console import Bar
from dkl.data import Batches
from dkl.errors import UserError
from dkl.tasks import Progress, Task
from dkl.training.metrics import Row


def train_epoch(
    task: Task,
    batches: Batches,
    optimizer: Optimizer,
    *,
    epoch: int,
    epochs: int,
    bar: Bar,
    autocast: bool = False,
) -> Row:
    """One epoch; returns its mean loss, accuracies in [0, 1] and speed. Raises UserError where the loss is not finite.

    Sums stay on the device until the epoch is over, so that no step waits for the last one's figures.
    """
    device = batches.labels.device
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device, dtype=torch.float64))
    started, seen = time.perf_counter(), 0
    task.model.train()
    for step, batch in enumerate(batches.epoch(epoch)):
        progress = Progress(epoch, epochs, step, len(batches))
        forward = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
        update = torch.autocast(device.type, enabled=False)
        with forward, task.step(batch, progress) as out, update:
            optimizer.zero_grad(set_to_none=True)
            out.loss.backward()
            optimizer.step()
        size = len(batch.labels)
        sums["loss"] += out.loss.detach() * size
        for name, value in out.sums.items():
            sums[name] += value
        seen += size
        bar.advance()
    task.end_epoch()
    row = {name.replace("_correct", "_accuracy"): (value / seen).item() for name, value in sums.items()}
    if not torch.isfinite(torch.tensor(row["loss"])):
        raise UserError(
            f"the loss is {row['loss']} in epoch {epoch}; the last good checkpoint is kept. Lower optimizer.lr or the "
            "loss weights, or train in float32 if precision is bf16"
        )
    row["images_per_second"] = seen / (time.perf_counter() - started)
    return row
