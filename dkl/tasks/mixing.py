"""Images mixed in pairs, with labels mixed alike, and the cross-entropies of such labels.

    mixup    x = λ x_i + (1 − λ) x_j            y = λ y_i + (1 − λ) y_j            (Zhang et al. 2018)
    cutmix   x = x_i, and x_j in a box of the area 1 − λ; y as above               (Yun et al. 2019)

λ ~ Beta(α, α) is drawn once for what a process forwards at a time, as timm's ``Mixup`` does, which mixes: image i with
the i-th from the end. Where both are on, chance decides between them.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from timm.data.mixup import Mixup, one_hot
from torch import Tensor

from dkl.data import Batch
from dkl.data.seeding import preserved_global_rng, seed_global, seed_of
from dkl.errors import UserError
from dkl.tasks.base import Progress


@dataclass(frozen=True, kw_only=True)
class ImageMixing:
    """Mixes batches of ``num_classes`` classes; ``mixup`` and ``cutmix`` are each one's α, 0 is off.

    What is drawn follows from ``seed``, epoch, step and the images' place in the batch.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    num_classes: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.mixup < math.inf and 0 <= self.cutmix < math.inf):
            raise UserError(f"task.mixup={self.mixup}, task.cutmix={self.cutmix}: neither may be below 0, which is off")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, batch: Batch, progress: Progress) -> tuple[Tensor, Tensor]:
        """Images and labels [B] as they were; or mixed images, and the share of each class in the label, [B, classes].

        Of an odd number the last image stays as it was.
        """
        if not self:
            return batch.images, batch.labels
        even = len(batch.labels) // 2 * 2
        mix = Mixup(self.mixup, self.cutmix, label_smoothing=0.0, num_classes=self.num_classes)
        images, targets = batch.images.clone(), one_hot(batch.labels, self.num_classes)
        with preserved_global_rng():
            seed_global(seed_of(self.seed, progress.epoch, progress.step, batch.first))
            images[:even], targets[:even] = mix(images[:even], batch.labels[:even])
        return images, targets.to(images.dtype)


def label_loss(logits: Tensor, labels: Tensor, *, binary: bool = False, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of ``logits[B, C]`` with ``labels``: int64 [B], or shares of classes [B, C].

    With ``binary`` it is that of every class against the rest, the mean over classes as well as images (timm's BCE).
    """
    if labels.is_floating_point():
        logits = logits.to(labels.dtype)
    if not binary:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if labels.ndim == 1:
        labels = one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, labels * (1 - smoothing) + smoothing / logits.shape[-1])


def likeliest(labels: Tensor) -> Tensor:
    """The label of each image, int64 [B]: of shares of classes that with the largest."""
    return labels if labels.ndim == 1 else labels.argmax(-1)
