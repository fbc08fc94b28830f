"""Plain supervised training: cross-entropy on natural images. It trains teachers and natural baselines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import nn

from dkl.data import Batch
from dkl.tasks.base import Output, Progress, Task, count_correct


class Classification(Task):
    """Cross-entropy of ``model`` on natural images, with ``label_smoothing`` in [0, 1)."""

    def __init__(self, model: nn.Module, *, label_smoothing: float = 0.0) -> None:
        self.model = model
        self.label_smoothing = label_smoothing

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains."""
        return self.model.named_parameters()

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        logits = self.model(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        yield Output(loss, {"natural_correct": count_correct(logits, batch.labels)})

    def end_epoch(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""
