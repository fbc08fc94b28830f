"""The one training loop. It handles batches, an optimizer and a task.

It knows nothing of attacks, and of losses only that some report their terms.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from dkl.console import Bar
from dkl.data import Batch, Loader
from dkl.errors import UserError
from dkl.losses import observed_terms
from dkl.runtime.distributed import gather, share_buffers, sum_gradients, sum_over_ranks, world
from dkl.tasks import Output, Progress, Task
from dkl.training.state import MetricsRow


class NonFiniteLossError(Exception):
    """The loss of ``batch`` at ``progress`` is NaN or infinite. Raised before the optimizer steps."""

    def __init__(self, batch: Batch, progress: Progress, out: Output) -> None:
        super().__init__(f"the loss is {out.loss.item()} in epoch {progress.epoch}, batch {progress.step}")
        self.batch, self.progress, self.out = batch, progress, out


@dataclass
class EpochSums:
    """What an epoch has measured after ``step`` steps: sums over this process's ``seen`` views, and its seconds.

    ``images`` counts each image once, however many views it has. A sum with an entry in ``counts`` is divided by that
    instead of by the views.
    """

    step: int = 0
    seen: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, out: Output, size: int, views: int = 1, terms: Mapping[str, Sequence[Tensor]] | None = None) -> None:
        """Add a part of ``size`` views, ``views`` of each image, and the values of each of the loss's ``terms``."""
        means = {name: torch.stack([*values]).mean() for name, values in (terms or {}).items()}
        ratios = {**out.ratios, **{name: (size * mean, torch.full_like(mean, size)) for name, mean in means.items()}}
        sums = {name: value for name, (value, _) in ratios.items()}
        for name, value in {"loss": out.loss.detach() * size, **out.sums, **sums}.items():
            self.sums[name] = self.sums.get(name, 0) + value.double()
        for name, (_, count) in ratios.items():
            self.counts[name] = self.counts.get(name, 0) + count.double()
        self.seen += size
        self.images += size // views

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors on the CPU and plain values."""
        kinds = {"sums": self.sums, "counts": self.counts}
        values = {kind: {name: value.cpu() for name, value in found.items()} for kind, found in kinds.items()}
        return {"step": self.step, "seen": self.seen, "images": self.images, "seconds": self.seconds, **values}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "EpochSums":
        """Restore what ``state_dict`` returned."""
        sums, counts = ({name: value.to(device) for name, value in state[kind].items()} for kind in ("sums", "counts"))
        return cls(state["step"], state["seen"], state["images"], state["seconds"], sums, counts)


def _mean(found: EpochSums) -> tuple[MetricsRow, float]:
    """Turn sums over this process into means over all processes, and count the images of all.

    A mean is over its entry in ``counts`` if given, else over the views. A quantity whose count is zero is left out.
    A process may lack one, such as a loss of images that it did not have.
    """
    device, zero = found.sums["loss"].device, partial(torch.zeros, (), dtype=torch.float64)
    known = {name: one[name] for one in gather({name: name in found.counts for name in found.sums}) for name in one}
    sums = {name: found.sums.get(name, zero(device=device)) for name in known}
    counts = {name: found.counts.get(name, zero(device=device)) for name, counted in known.items() if counted}
    numbers = torch.tensor([found.seen, found.images], dtype=torch.float64, device=device)
    sum_over_ranks([*sums.values(), *counts.values(), numbers])
    # One copy to the CPU, which waits for the device, for all of them.
    divisors = (counts.get(name, numbers[0]) for name in sums)
    *totals, images = torch.stack([*sums.values(), *divisors, numbers[1]]).tolist()
    means = zip(sums, totals[: len(sums)], totals[len(sums) :], strict=True)
    return {name.replace("_correct", "_accuracy"): value / count for name, value, count in means if count > 0}, images


@contextmanager
def _checked_step(task: Task, batch: Batch, progress: Progress) -> Iterator[Output]:
    """The task's step. Raises UserError if it is no context, or if what it yields is no Output with a scalar loss."""
    name, step = f"{type(task).__name__}.step", cast(object, task.step(batch, progress))
    if not isinstance(step, AbstractContextManager):
        raise UserError(f"task: {name} returns a {type(step).__name__}: decorate it with @contextmanager")
    with step as out:
        if not isinstance(out, Output):
            raise UserError(f"task: {name} yields a {type(out).__name__}: yield a dkl.tasks.Output")
        if out.loss.ndim:
            raise UserError(f"task: {name} yields a loss {list(out.loss.shape)}, not a scalar: take the mean")
        yield out


def train_epoch(
    task: Task,
    batches: Loader,
    optimizer: Optimizer,
    *,
    epoch: int,
    epochs: int,
    bar: Bar,
    accumulate: int = 1,
    autocast: bool = False,
    before_step: Callable[[int], object] = lambda step: None,
    after_step: Callable[[EpochSums], None] = lambda so_far: None,
    so_far: EpochSums | None = None,
) -> MetricsRow:
    """Train one epoch; returns its mean loss, accuracies in [0, 1], seconds and images per second.

    One batch is one update. Its gradient is the sum over ``accumulate`` parts, each weighted by its share of the batch.
    That is the gradient of the mean loss, with the memory of one part. ``before_step`` is called with the number of the
    step before each update, ``after_step`` after it with what was measured so far. The epoch continues after the steps
    of ``so_far``. Raises NonFiniteLossError before a step whose loss is not finite.
    """
    device, so_far = batches.labels.device, so_far or EpochSums()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started = time.perf_counter() - so_far.seconds
    task.model.train()
    # Batches depend on seed and epoch only, so those of the steps done are made again and left out.
    for step, batch in islice(enumerate(batches.epoch(epoch)), so_far.step, None):
        progress = Progress(epoch, epochs, step, len(batches))
        before_step(step)
        share_buffers(task.model)
        optimizer.zero_grad(set_to_none=True)
        # All processes need the same number of parts, also one with fewer images: their forwards may wait for each
        # other (SyncBatchNorm).
        smallest = (batch.total or len(batch.labels) // batch.views) // world()
        parts = [batch] if accumulate == 1 else list(batch.parts(min(accumulate, smallest)))
        for number, part in enumerate(parts, 1):
            forward = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
            backward = torch.autocast(device.type, enabled=False)  # torch advises against autocast in backward
            with forward, observed_terms() as terms, _checked_step(task, part, progress) as out, backward:
                # The only value that the CPU waits for at each step; the others stay on the device for the epoch.
                if not torch.isfinite(out.loss):
                    raise NonFiniteLossError(part, progress, out)
                # Each process scales its loss by its share of the batch: the sum over all parts and processes is the
                # gradient of the batch's mean loss.
                (out.loss if part.share == 1 else out.loss * part.share).backward()
                # Inside the context: the task takes back its changes of the weights (AWP) only after the update.
                if number == len(parts):
                    sum_gradients(trained)
                    optimizer.step()
            so_far.add(out, len(part.labels), part.views, terms)
        so_far.step, so_far.seconds = step + 1, time.perf_counter() - started
        after_step(so_far)
        bar.advance()
    share_buffers(task.model)
    task.end_epoch()
    row, images = _mean(so_far)
    row["epoch_seconds"] = time.perf_counter() - started
    row["images_per_second"] = images / row["epoch_seconds"]
    return row
