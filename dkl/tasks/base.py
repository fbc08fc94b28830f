"""What the training loop asks of a task."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from dkl.data import Batch


@dataclass(frozen=True)
class Progress:
    """``epoch`` of ``epochs``, counted from 1 as in the official code, and ``step`` of ``steps``, from 0."""

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1


@dataclass(frozen=True)
class Output:
    """The loss to differentiate, the mean over this process's share of the batch, and what to report beside it.

    ``sums`` are over that share (``…_correct``: how many were classified right); ``adversarial_images`` are those the
    loss saw, for the file that is kept where the loss is not finite.
    """

    loss: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    adversarial_images: Tensor | None = None


class Task(Protocol):
    """One step as a context: what is set on entry is taken back on exit, also when the body raises."""

    model: nn.Module

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains."""
        ...

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Called once before the first epoch, or the first after an interruption, with all test and training images:
        in order and unchanged, this process's share of them."""

    def step(self, batch: Batch, progress: Progress) -> AbstractContextManager[Output]:
        """The loss of a batch; the loop differentiates it and takes the optimiser step inside the context."""
        ...

    def end_epoch(self) -> None:
        """Called after the last step of every epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All state of the task but the model's, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        ...


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of ``logits[B, C]`` have their largest entry at ``labels[B]``."""
    return (logits.detach().argmax(-1) == labels).sum()
