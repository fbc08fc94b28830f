"""Segmentation with masks: losses and counts per pixel, and the task that trains teachers and baselines.

    loss = CE(logits, mask) + aux_weight · CE(auxiliary logits, mask)

Both are means over the pixels that count, at the size of the mask, as in semseg. Counts are summed over all images
before anything is divided, as in APD:

    IoU_c = hits_c / (true_c + predicted_c − hits_c)        mean over the classes that occur, in truth or prediction
    pixel accuracy = Σ hits / Σ true
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch
from dkl.errors import UserError, needs_extra
from dkl.models import forward_dense, load_encoder
from dkl.models.features import DenseOutput
from dkl.models.networks.pspnet import resize
from dkl.runtime.distributed import sum_over_ranks
from dkl.tasks.base import Output, Progress, Task
from dkl.validation import CLASSES, LABEL, WEIGHT, check_arguments


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


def count_pixels(predictions: Tensor, masks: Tensor, *, num_classes: int, ignore_index: int) -> SegmentationCounts:
    """Count the pixels of ``predictions[..., H, W]`` and ``masks[..., H, W]``, both int64."""
    with needs_extra("segmentation"):
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    table = multiclass_confusion_matrix(
        predictions, masks, num_classes=num_classes, ignore_index=ignore_index, validate_args=False
    )  # [true, predicted]
    return SegmentationCounts(table.diagonal(), table.sum(1), table.sum(0))


def mask_loss(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy of ``logits[B, C, h, w]``, up-sampled to ``masks[B, H, W]``: the mean over pixels that count.

    Zero, with a graph, if no pixel counts.
    """
    if logits.shape[-2:] != masks.shape[-2:]:
        logits = resize(logits, masks.shape[-2:])
    total = F.cross_entropy(logits, masks, ignore_index=ignore_index, reduction="sum")
    return total / (masks != ignore_index).sum().clamp(min=1)


class PixelTask(Task):
    """What tasks on images with masks share; ``ignore_index`` is the label of pixels that do not count.

    ``ce_weight`` and ``aux_weight`` weight the cross-entropies of the logits and of the auxiliary head, if any.
    """

    dense: ClassVar[bool] = True
    num_classes: int
    ignore_index: int
    ce_weight: float = 1.0
    aux_weight: float

    def use_masks(self, ignore_index: int | None, aux_weight: float) -> None:
        """Take the settings. Raises UserError if there is no ``ignore_index``, or if torchmetrics is missing."""
        if ignore_index is None:
            raise UserError(
                "task.ignore_index=null: segmentation needs images with masks, and a label for pixels that do not "
                "count: choose data=camvid, ade20k, masks or scenes"
            )
        with needs_extra("segmentation"):
            import torchmetrics  # noqa: F401  # checked before any work
        self.ignore_index, self.aux_weight = ignore_index, aux_weight

    def label_loss(self, out: DenseOutput, masks: Tensor) -> Tensor:
        """The weighted cross-entropies with ``masks``."""
        loss = self.ce_weight * mask_loss(out.logits, masks, self.ignore_index)
        if out.auxiliary is not None and self.aux_weight:
            loss = loss + self.aux_weight * mask_loss(out.auxiliary, masks, self.ignore_index)
        return loss

    def output(self, loss: Tensor, logits: Tensor, masks: Tensor) -> Output:
        """``loss``, with how many pixels are predicted right, and how many count."""
        counted = masks != self.ignore_index
        right = (logits.detach().argmax(1) == masks) & counted
        return Output(loss, ratios={"natural_correct": (right.sum(), counted.sum())})

    @torch.no_grad()
    def test(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Pixel accuracy and mean IoU of ``model``, in eval mode, on the batches of all processes."""
        total = SegmentationCounts(*(torch.zeros(self.num_classes, dtype=torch.int64) for _ in range(3)))
        with frozen_eval(model):
            for batch in batches:
                counts = count_pixels(
                    model(batch.images).argmax(1),
                    batch.labels,
                    num_classes=self.num_classes,
                    ignore_index=self.ignore_index,
                )
                for sums, values in zip(total, counts, strict=True):
                    sums += values.cpu()
        sum_over_ranks(total)
        return {"accuracy": total.accuracy, "miou": total.miou}


class Segmentation(PixelTask):
    """Cross-entropy of ``model`` per pixel; ``aux_weight`` weights its auxiliary head, if it has one.

    ``ignore_index`` is the label of pixels that do not count. ``encoder_weights`` are ImageNet weights, a file or
    a name of timm, from which the encoder starts where names and shapes agree.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: Annotated[int, CLASSES],
        ignore_index: Annotated[int | None, LABEL],
        aux_weight: Annotated[float, WEIGHT] = 0.4,
        encoder_weights: str | None = None,
    ) -> None:
        self.model, self.num_classes = model, num_classes
        self.use_masks(ignore_index, aux_weight)
        load_encoder(model, encoder_weights)

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        out = forward_dense(self.model, batch.images)
        yield self.output(self.label_loss(out, batch.labels), out.logits, batch.labels)
