"""Pixel counts per class, and what follows from them: IoU of each class, mean IoU and pixel accuracy.

    IoU_c = hits_c / (true_c + predicted_c − hits_c)        mean over the classes that occur, in truth or prediction
    pixel accuracy = Σ hits / Σ true

Counts are summed over all images before anything is divided, as in APD. torchmetrics counts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch
from dkl.errors import needs_extra


class SegmentationCounts(NamedTuple):
    """Pixels per class, int64 ``[..., C]``: predicted right, true, and predicted. Ignored pixels are in none."""

    hits: Tensor
    true: Tensor
    predicted: Tensor

    @property
    def iou(self) -> Tensor:
        """IoU per class; NaN if the class occurs neither in truth nor in prediction."""
        hits = self.hits.double()
        return hits / (self.true + self.predicted - self.hits)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return self.iou.nanmean(-1).item()

    @property
    def accuracy(self) -> float:
        """The share of correct pixels."""
        return (self.hits.sum() / self.true.sum()).item()


def require_torchmetrics() -> None:
    """Raise NotInstalledError if torchmetrics is missing."""
    with needs_extra("segmentation"):
        import torchmetrics  # noqa: F401


def count_pixels(predictions: Tensor, masks: Tensor, *, num_classes: int, ignore_index: int) -> SegmentationCounts:
    """Count the pixels of ``predictions[..., H, W]`` and ``masks[..., H, W]``, both int64."""
    with needs_extra("segmentation"):
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    table = multiclass_confusion_matrix(
        predictions, masks, num_classes=num_classes, ignore_index=ignore_index, validate_args=False
    )  # [true, predicted]
    return SegmentationCounts(table.diagonal(), table.sum(1), table.sum(0))


@torch.no_grad()
def count_all(model: nn.Module, batches: Iterable[Batch], *, num_classes: int, ignore_index: int) -> SegmentationCounts:
    """Count the pixels of all ``batches``, whose labels are masks, with ``model`` in eval mode; on the CPU."""
    total = SegmentationCounts(*(torch.zeros(num_classes, dtype=torch.int64) for _ in range(3)))
    with frozen_eval(model):
        for batch in batches:
            found = count_pixels(
                model(batch.images).argmax(1), batch.labels, num_classes=num_classes, ignore_index=ignore_index
            )
            total = SegmentationCounts(*(one + other.cpu() for one, other in zip(total, found, strict=True)))
    return total
