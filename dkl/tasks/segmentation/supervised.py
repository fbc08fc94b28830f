"""Segmentation with masks: cross-entropy per pixel, and of the auxiliary head. It trains teachers and baselines.

    loss = CE(logits, mask) + aux_weight · CE(auxiliary logits, mask)

Both are means over the pixels that count, at the size of the mask, as in semseg.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from torch import Tensor, nn

from dkl.data import Batch
from dkl.errors import UserError
from dkl.models import forward_dense, load_encoder
from dkl.models.features import DenseOutput
from dkl.runtime.distributed import sum_over_ranks
from dkl.tasks.base import Output, Progress, Task
from dkl.tasks.segmentation.metrics import count_all, require_torchmetrics
from dkl.tasks.segmentation.pixels import correct_pixels, mask_loss
from dkl.validation import CLASSES, LABEL, WEIGHT, check_arguments


def check_masks(ignore_index: int | None) -> int:
    """Return ``ignore_index``. Raises UserError if there is none, or if torchmetrics is missing."""
    if ignore_index is None:
        raise UserError(
            "task.ignore_index=null: segmentation needs images with masks, and a label for pixels that do not count: "
            "choose data=camvid, ade20k, masks or scenes"
        )
    require_torchmetrics()
    return ignore_index


def label_losses(out: DenseOutput, masks: Tensor, ignore_index: int, ce_weight: float, aux_weight: float) -> Tensor:
    """The weighted cross-entropies of the logits and, if there are any, of the auxiliary logits."""
    loss = ce_weight * mask_loss(out.logits, masks, ignore_index)
    if out.auxiliary is not None and aux_weight:
        loss = loss + aux_weight * mask_loss(out.auxiliary, masks, ignore_index)
    return loss


def test_metrics(model: nn.Module, batches: Iterable[Batch], num_classes: int, ignore_index: int) -> dict[str, float]:
    """Pixel accuracy and mean IoU of ``model`` on the batches of all processes."""
    counts = count_all(model, batches, num_classes=num_classes, ignore_index=ignore_index)
    sum_over_ranks(counts)
    return {"accuracy": counts.accuracy, "miou": counts.miou}


class Segmentation(Task):
    """Cross-entropy of ``model`` per pixel; ``aux_weight`` weights its auxiliary head, if it has one.

    ``ignore_index`` is the label of pixels that do not count. ``encoder_weights`` are ImageNet weights, a file or
    a name of timm, from which the encoder starts where names and shapes agree.
    """

    dense: ClassVar[bool] = True

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
        self.model, self.num_classes, self.aux_weight = model, num_classes, aux_weight
        self.ignore_index = check_masks(ignore_index)
        load_encoder(model, encoder_weights)

    def test(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Pixel accuracy and mean IoU."""
        return test_metrics(model, batches, self.num_classes, self.ignore_index)

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        out = forward_dense(self.model, batch.images)
        loss = label_losses(out, batch.labels, self.ignore_index, 1.0, self.aux_weight)
        yield Output(loss, ratios={"natural_correct": correct_pixels(out.logits, batch.labels, self.ignore_index)})
