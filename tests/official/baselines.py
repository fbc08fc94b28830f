"""Plain PyTorch for the baselines' tests: an attack, a step of SGD and AWP, written apart from the package."""

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.assembly import build_model, build_task, load_data, make_batches, preflight
from dkl.config import TrainConfig, compose_config, typed
from dkl.data import Batch
from dkl.tasks import Progress, Task
from dkl.training.optimizer import make_optimizer
from tests.tasks.common import EPS, make_batch

LR, DECAY, STEPS, STEP_SIZE = 0.1, 1e-3, 3, EPS / 2
FIRST = Progress(1, 4)
TINY = ["model=small_cnn", "data.train_size=48", "data.test_size=20", "trainer.batch_size=16", "trainer.device=cpu"]


def double_batch(size: int = 9) -> Batch:
    """A batch in float64."""
    batch = make_batch(size)
    return batch._replace(images=batch.images.double())


def attacked(model: nn.Module, images: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """STEPS signed steps that raise ``loss`` of the logits of ``model`` in eval mode."""
    frozen, x = copy.deepcopy(model).eval(), start.clone()
    for _ in range(STEPS):
        x.requires_grad_(True)
        loss(frozen(x)).backward()
        moved = x.detach() + STEP_SIZE * torch.sign(x.grad)
        x = torch.min(torch.max(moved, images - EPS), images + EPS).clamp(0, 1)
    return x


def ascended(model: nn.Module, loss: Callable[[nn.Module], Tensor], gamma: float) -> list[Tensor]:
    """AWP's change of every parameter of ``model`` at ``loss`` of a copy."""
    other = copy.deepcopy(model)
    loss(other).backward()
    changes = []
    for name, w in other.named_parameters():
        matrix = w.dim() > 1 and name.endswith("weight")
        size = gamma * float(w.detach().pow(2).sum()) ** 0.5 / float(w.grad.pow(2).sum()) ** 0.5 if matrix else 0.0
        changes.append(size * w.grad)
    return changes


def descended(networks: list[nn.Module], loss: Callable[..., Tensor], changes: list[Tensor]) -> list[Tensor]:
    """Parameters of ``networks`` after a step of decayed SGD at those of the first network moved by ``changes``."""
    others = copy.deepcopy(networks)
    with torch.no_grad():
        for w, change in zip(others[0].parameters(), changes, strict=False):
            w += change
    loss(*others).backward()
    stepped = [w - LR * (w.grad + DECAY * w) for other in others for w in other.parameters()]
    return [w - v for w, v in zip(stepped, [*changes, *[torch.zeros(())] * len(stepped)], strict=False)]


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
