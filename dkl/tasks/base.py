"""The interface between the training loop and a task.

A task of your own derives from ``Task``, sets ``model`` and writes ``step``; everything else has a default:

    class Supervised(Task):
        def __init__(self, model: nn.Module) -> None:
            self.model = model

        @contextmanager
        def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
            yield Output(F.cross_entropy(self.model(batch.images), batch.labels))
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval, top1
from dkl.data import Batch
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

    A task with a ``prior`` fills it in ``step``; here it takes its means after each epoch. Attributes named in ``kept``
    are saved, and trained if they are networks. ``needs_unlabeled``: its batches need unlabeled images.
    ``needs_average``: the run keeps an average per step, which ``use_average`` gives to the task.
    """

    needs_unlabeled: ClassVar[bool] = False
    needs_average: ClassVar[bool] = False
    model: nn.Module
    prior: ClassPrior | None = None
    kept: ClassVar[tuple[str, ...]] = ("prior",)
    """Attributes that training changes, each with a ``state_dict``; those that are None or missing are left out."""
    dense: ClassVar[bool] = False
    """Whether labels are masks and the network gives logits for every pixel."""

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> AbstractContextManager[Output]:
        """A context that yields the loss of ``batch``.

        The loop differentiates the loss and takes the optimizer's step inside it. Whatever the context changes on entry
        it restores on exit, also if the body raises.
        """

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that the optimizer trains: those of the model and of the networks in ``kept``."""
        networks = ((name, part) for name, part in self._parts() if isinstance(part, nn.Module))
        return chain(self.model.named_parameters(), *(part.named_parameters(prefix=name) for name, part in networks))

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
        return {name: part.state_dict() for name, part in self._parts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, part in self._parts():
            part.load_state_dict(state[name])

    def _parts(self) -> Iterator[tuple[str, Any]]:
        return ((name, part) for name in self.kept if (part := getattr(self, name, None)) is not None)


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """Bool ``[N]`` on the CPU: which images of ``batches`` ``model``, in eval mode, classifies correctly."""
    with frozen_eval(model):
        return torch.cat([top1(model(batch.images), batch.labels).cpu() for batch in batches])


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of ``logits[B, C]`` have their largest entry at ``labels[B]``."""
    return top1(logits.detach(), labels).sum()
