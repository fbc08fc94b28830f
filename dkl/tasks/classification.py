"""Plain supervised training: cross-entropy on natural or mixed images. It trains teachers and baselines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from torch import nn

from dkl.data import Batch
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.tasks.mixing import ImageMixing, label_loss, likeliest
from dkl.validation import CLASSES, FRACTION, MIXING, SEED, check_arguments


class Classification(Task):
    """Cross-entropy of ``model`` on natural images, with ``label_smoothing`` in [0, 1); ``bce`` is the binary one.

    Smoothing is spread over all C classes, as in torch. ``mixup`` and ``cutmix`` are the α of the two ways to mix
    images (0: off); ``seed`` fixes the random choices.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: Annotated[int, CLASSES],
        label_smoothing: Annotated[float, FRACTION] = 0.0,
        bce: bool = False,
        mixup: Annotated[float, MIXING] = 0.0,
        cutmix: Annotated[float, MIXING] = 0.0,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        self.model = model
        self.label_smoothing, self.bce = label_smoothing, bce
        self.mixing = ImageMixing(mixup=mixup, cutmix=cutmix, num_classes=num_classes, seed=seed)

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        images, labels = self.mixing(batch, progress)
        logits = self.model(images)
        loss = label_loss(logits, labels, binary=self.bce, smoothing=self.label_smoothing)
        yield Output(loss, {"natural_correct": count_correct(logits, likeliest(labels))})
