"""Steps of dkl's tasks for the tests of the baselines: on a tiny network, and composed from a recipe."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.assembly import build_model, build_task, load_data, make_batches, preflight
from dkl.config import TrainConfig, compose_config, typed
from dkl.data import Batch
from dkl.tasks import Progress, Task
from dkl.training.optimizer import make_optimizer
from tests.official.baselines import DECAY, LR
from tests.tasks.common import make_batch

FIRST = Progress(1, 4)
TINY = ["model=small_cnn", "data.train_size=48", "data.test_size=20", "trainer.batch_size=16", "trainer.device=cpu"]


def double_batch(size: int = 9) -> Batch:
    """A batch in float64."""
    batch = make_batch(size)
    return batch._replace(images=batch.images.double())


def take_step(task: Task, batch: Batch, progress: Progress = FIRST) -> tuple[Tensor, list[Tensor]]:
    """The loss of one step, and all parameters after it."""
    named = list(task.named_parameters())
    optimizer = torch.optim.SGD([w for _, w in named], lr=LR, momentum=0.9, weight_decay=DECAY)
    task.model.train()
    with task.step(batch, progress) as out:
        out.loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return out.loss.detach(), [w.detach().clone() for _, w in named]


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to 1e-10."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def cross_entropy(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Its mean over the batch, as a function of the logits."""
    return lambda logits: F.cross_entropy(logits, labels)


def composed_steps(overrides: list[str], count: int = 2) -> Iterator[tuple[Task, dict[str, Any]]]:
    """The task of a composed configuration after each of its first steps on digits, and what each step reported."""
    cfg = compose_config("train", [*TINY, *overrides])
    preflight(cfg)
    training, _ = load_data(cfg.data)
    model = build_model(cfg.model)
    task = build_task(cfg.task, model)
    optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
    batches = make_batches(typed(cfg, TrainConfig), training, torch.device("cpu"), training=True)
    model.train()
    for step, batch in enumerate(islice(batches.epoch(1), count)):
        with task.step(batch, Progress(1, cfg.trainer.epochs, step, len(batches))) as out:
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
        yield task, {"loss": float(out.loss.detach()), **{name: int(value) for name, value in out.sums.items()}}
    task.end_epoch()
