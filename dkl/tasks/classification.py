"""Plain supervised training: cross-entropy on natural or mixed images. It trains teachers and baselines.

Images are mixed in pairs, and their labels in the same ratio:

    mixup    x = λ x_i + (1 − λ) x_j                          y = λ y_i + (1 − λ) y_j      (Zhang et al. 2018)
    cutmix   x = x_i, with a box of area 1 − λ from x_j       y as above                   (Yun et al. 2019)

λ ~ Beta(α, α) is drawn once for all images that a process forwards together. timm's ``Mixup`` does the mixing: image i
with the i-th from the end. If both are on, each batch is mixed one way or the other, at random.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from timm.data.mixup import Mixup, one_hot
from torch import Tensor, nn

from dkl.data import Batch
from dkl.data.seeding import preserved_global_rng, seed_global, seed_of
from dkl.errors import UserError
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.validation import CLASSES, FRACTION, MIXING, SEED, check_arguments, check_fields


@dataclass(frozen=True, kw_only=True)
class ImageMixing:
    """Mixes batches with labels of ``num_classes`` classes; ``mixup`` and ``cutmix`` are their α, 0 is off.

    Random choices depend on ``seed``, epoch, step and the images' place in the batch only.
    """

    mixup: Annotated[float, MIXING] = 0.0
    cutmix: Annotated[float, MIXING] = 0.0
    num_classes: Annotated[int, CLASSES]
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self, "task")
        for name in ("mixup", "cutmix"):
            # numpy draws NaN from the Beta distribution of an α near the smallest float.
            if 0 < (alpha := getattr(self, name)) < 1e-6:
                raise UserError(f"task.{name}={alpha:g} is too small to draw from: use at least 1e-6, or 0 for off")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, batch: Batch, progress: Progress) -> tuple[Tensor, Tensor]:
        """Unmixed images and labels ``[B]`` if mixing is off, else mixed images and class shares ``[B, C]``.

        If the number of images is odd, the last one stays unmixed.
        """
        if not self:
            return batch.images, batch.labels
        even = len(batch.labels) // 2 * 2
        mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=self.num_classes)
        images, targets = batch.images.clone(), one_hot(batch.labels, self.num_classes)
        # timm draws from numpy's global generator. Seeding it by position makes an interrupted run repeat its choices.
        with preserved_global_rng():
            seed_global(seed_of(self.seed, progress.epoch, progress.step, batch.first))
            images[:even], targets[:even] = mix(images[:even], batch.labels[:even])
        return images, targets.to(images.dtype)


def label_loss(logits: Tensor, labels: Tensor, *, binary: bool = False, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of ``logits[B, C]`` with ``labels``: int64 ``[B]``, or class shares ``[B, C]``.

    ``binary`` computes it for each class against the others, averaged over classes and images (timm's BCE).
    """
    if labels.is_floating_point():
        logits = logits.to(labels.dtype)
    if not binary:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if labels.ndim == 1:
        labels = one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, labels * (1 - smoothing) + smoothing / logits.shape[-1])


def likeliest(labels: Tensor) -> Tensor:
    """The label of each image, int64 ``[B]``; for class shares, the class with the largest share."""
    return labels if labels.ndim == 1 else labels.argmax(-1)


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
        images, labels = self.mixing(batch, progress)
        logits = self.model(images)
        loss = label_loss(logits, labels, binary=self.bce, smoothing=self.label_smoothing)
        yield Output(loss, {"natural_correct": count_correct(logits, likeliest(labels))})
