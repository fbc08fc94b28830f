"""Losses per pixel: cross-entropy with masks, and any pair loss, averaged over the pixels that count."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses import ClassPrior, PairLoss, RowLoss, wanted_arguments
from dkl.models.networks.pspnet import resize


def mask_loss(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy of ``logits[B, C, h, w]``, up-sampled to ``masks[B, H, W]``: the mean over pixels that count.

    Zero, with a graph, if no pixel counts.
    """
    if logits.shape[-2:] != masks.shape[-2:]:
        logits = resize(logits, masks.shape[-2:])
    total = F.cross_entropy(logits, masks, ignore_index=ignore_index, reduction="sum")
    return total / (masks != ignore_index).sum().clamp(min=1)


def shrunk(masks: Tensor, size: torch.Size) -> Tensor:
    """``masks[B, H, W]`` at the pixels onto which corner-aligned ``size`` falls, as logits are before up-sampling."""
    rows, columns = (
        torch.linspace(0, side - 1, small, device=masks.device).round().long()
        for side, small in zip(masks.shape[-2:], size, strict=True)
    )
    return masks[:, rows[:, None], columns]


def pixel_loss(
    loss: PairLoss,
    teacher: Tensor,
    student: Tensor,
    masks: Tensor,
    *,
    ignore_index: int,
    prior: ClassPrior | None = None,
    masked: bool = True,
) -> Tensor:
    """``loss`` of every pixel of logits ``[B, C, H, W]``, averaged over the pixels that count in ``masks[B, H, W]``.

    Without ``masked`` all pixels count, as in APD's KL. A loss with ``rows`` takes the logits as they are; any other
    gets the pixels that count as rows ``[P, C]``, which copies them. Class-wise weights are the prior's rows of the
    pixels' labels. Zero, with a graph, if no pixel counts.
    """
    counted = masks != ignore_index if masked else torch.ones_like(masks, dtype=torch.bool)
    if isinstance(loss, RowLoss) and loss.weighting != "label":
        weights = {}
        if loss.weighting == "class" and prior is not None:
            weights = {"weights": _class_weights(prior, torch.where(masks == ignore_index, 0, masks), student)}
        values = loss.rows(teacher, student, **weights)
        return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
    if not counted.any():
        return student.sum() * 0
    rows = (logits.movedim(1, -1)[counted] for logits in (teacher, student))
    return loss(*rows, **wanted_arguments(loss, masks[counted], prior))


def _class_weights(prior: ClassPrior, labels: Tensor, like: Tensor) -> Tensor:
    """The prior's rows of ``labels[B, H, W]`` as ``[B, C, H, W]``, in the memory layout of ``like``."""
    if like.stride(1) == 1:
        return prior[labels].movedim(-1, 1)
    return prior.table.T[:, labels].movedim(0, 1)


@torch.no_grad()
def observe(
    prior: ClassPrior, logits: Tensor, masks: Tensor, *, ignore_index: int, temperature: float, num_classes: int
) -> None:
    """Add the predictions of all pixels that count to the sums of ``prior``."""
    counted = masks != ignore_index
    rows, labels = logits.detach().movedim(1, -1)[counted], masks[counted]
    predictions = (rows.to(prior.sums.dtype) / temperature).softmax(-1)
    # Summed per batch first: a dataset has 10⁹ pixels, and float32 cannot add one prediction to sums of that size.
    sums = torch.zeros_like(prior.sums).index_add_(0, labels, predictions)
    prior.accumulate(sums, torch.arange(num_classes, device=sums.device))


def correct_pixels(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """How many pixels of ``logits[B, C, H, W]`` are predicted right, and how many count."""
    counted = masks != ignore_index
    return ((logits.detach().argmax(1) == masks) & counted).sum(), counted.sum()
