"""The interface between the training loop and a task.

A task of your own derives from ``Task``, sets ``model`` and writes ``step``; everything else has a default:

    class Supervised(Task):
        def __init__(self, model: nn.Module) -> None:
            self.model = model

        @contextmanager
        def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
            yield Output(F.cross_entropy(self.model(batch.images), batch.labels))
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval, top1
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import ClassPrior
from dkl.runtime.distributed import mean_over_ranks


@dataclass(frozen=True)
class Progress:
    """``epoch`` of ``epochs``, counted from 1 as in the official code, and ``step`` of ``steps``, counted from 0."""

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1


@dataclass(frozen=True)
class Output:
    """The loss to differentiate (the mean over this process's share of the batch), and what else to report.

    ``sums`` are sums over that share, such as ``natural_correct``, the number of correct predictions; the log shows
    them as ``natural_accuracy``. ``adversarial_images`` are those of the loss, kept in a file if it is not finite.
    ``ratios`` are a sum and the count that divides it, if that is not the number of labeled images.
    """

    loss: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    adversarial_images: Tensor | None = None
    ratios: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Task(ABC):
    """What one training step computes, with all state that training changes.

    A task with a ``prior`` fills it in ``step``; here it takes its means after each epoch, and is saved.
    ``needs_unlabeled``: its batches need unlabeled images. ``needs_average``: the run keeps an average per step, which
    ``use_average`` gives to the task.
    """

    needs_unlabeled: ClassVar[bool] = False
    needs_average: ClassVar[bool] = False
    model: nn.Module
    prior: ClassPrior | None = None
    dense: ClassVar[bool] = False
    """Whether labels are masks and the network gives logits for every pixel."""

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> AbstractContextManager[Output]:
        """A context that yields the loss of ``batch``.

        The loop differentiates the loss and takes the optimizer's step inside it. Whatever the context changes on entry
        it restores on exit, also if the body raises.
        """

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that the optimizer trains."""
        return self.model.named_parameters()

    def trained_networks(self) -> Iterator[nn.Module]:
        """The model, and other networks of the task that are trained with it."""
        networks = (value for value in vars(self).values() if isinstance(value, nn.Module))
        return (network for network in networks if any(p.requires_grad for p in network.parameters()))

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Prepare for training; called once before the first epoch, and again after an interruption.

        ``testing`` and ``training`` are this process's share of all images, unaugmented and in order.
        """
        return

    def use_average(self, average: nn.Module) -> None:
        """Take the network with the averaged weights of the run, which is updated after each step."""
        return

    def test(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics of ``model`` on ``batches``, this process's share of the test images: at least ``accuracy``.

        ``batches`` may be iterated more than once. The metrics are logged as ``test_accuracy`` and so on, and as
        ``average_test_accuracy`` for averaged weights. Records keep those of the last epoch, and a manifest may have
        a column of each.
        """
        accuracy, _ = mean_over_ranks(correct(model, batches))
        return {"accuracy": accuracy}

    def end_epoch(self) -> None:
        """Finish an epoch; called after its last step. The class prior takes the epoch's means over all processes."""
        if self.prior is not None:
            self.prior.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """All state of the task except the model's, as tensors and plain values."""
        return {} if self.prior is None else {"prior": self.prior.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])


def check_task(task: object) -> Task:
    """Return ``task`` if the training loop can use it. Raises UserError that names what is missing."""
    name = type(task).__name__
    if not isinstance(task, Task):
        raise UserError(f"task: {name} is not a task: derive it from dkl.tasks.Task and write step(batch, progress)")
    if not isinstance(getattr(task, "model", None), nn.Module):
        raise UserError(f"task: {name} has no model: set self.model in __init__, which is called with model=...")
    if inspect.isgeneratorfunction(type(task).step):
        raise UserError(f"task: {name}.step returns a generator: decorate it with @contextmanager")
    return task


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Bool ``[N]`` on the CPU: which images of ``batches`` ``model``, in eval mode, classifies correctly."""
    with frozen_eval(model):
        return torch.cat([top1(model(batch.images), batch.labels).cpu() for batch in batches])


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of ``logits[B, C]`` have their largest entry at ``labels[B]``."""
    return top1(logits.detach(), labels).sum()
