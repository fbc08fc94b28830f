"""The two prototype terms of APD (Tian et al., TPAMI 2022): class means of features as classifiers of pixels.

Features of student and teacher go through an adapter each (1×1 convolution, ReLU, 1×1 convolution) and are normalized.
The prototype of a class is the normalized mean over its pixels in a group of images, in APD the two of one GPU. With
the cosines between pixels and the prototypes of the classes in the group, times ``scale``, as logits,

    kl     the mean of nn.KLDivLoss of the student's logits against the teacher's (over pixels, prototypes and images)
    align  the mean over prototypes of ½ (1 − cos(student's, teacher's))

The teacher's adapter is trained by itself, by the cross-entropy of its logits with the mask, with its own Adam.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.models.features import feature_channels
from dkl.models.networks.pspnet import resize
from dkl.tasks.segmentation.pixels import mask_loss

ADAM_BETAS = (0.9, 0.99)


class PrototypeTerms(NamedTuple):
    """Scalars: the student's two terms, and the loss of the teacher's adapter."""

    kl: Tensor
    align: Tensor
    teacher: Tensor


def _adapter(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1))


class Prototypes(nn.Module):
    """The adapters for the features of two networks, ``width`` wide, and the terms.

    They are means over groups of ``images`` images, each with its own prototypes; None takes all images as one group.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        width: int = 512,
        scale: float = 10.0,
        images: int | None = None,
    ) -> None:
        super().__init__()
        channels = feature_channels(student), feature_channels(teacher)
        for network, count in zip((student, teacher), channels, strict=True):
            if count is None:
                raise UserError(
                    f"the features of {type(network).__name__} are not known: set task.prototype_weight=0 and "
                    "task.align_weight=0, or declare feature_classifier on it (see dkl.models.features)"
                )
        self.student, self.teacher = (_adapter(count or 0, width) for count in channels)
        self.scale, self.images = scale, images

    def forward(
        self, student: Tensor, teacher: Tensor, masks: Tensor, *, num_classes: int, ignore_index: int
    ) -> PrototypeTerms:
        """The terms of features ``[B, D, h, w]`` and ``masks[B, H, W]``; zeros of a group if no pixel counts."""
        count = len(masks)
        size = self.images or count
        groups = zip(student.split(size), teacher.split(size), masks.split(size), strict=True)
        shares = [
            [len(group[-1]) / count * term for term in self._terms(*group, num_classes, ignore_index)]
            for group in groups
        ]
        return PrototypeTerms(*(torch.stack(parts).sum(0) for parts in zip(*shares, strict=True)))

    def _terms(
        self, student: Tensor, teacher: Tensor, masks: Tensor, num_classes: int, ignore_index: int
    ) -> PrototypeTerms:
        """The terms of one group."""
        mine, theirs = (
            F.normalize(adapter(features), dim=1)
            for adapter, features in ((self.student, student), (self.teacher, teacher.detach()))
        )
        small = F.interpolate(masks[:, None].float(), size=theirs.shape[-2:], mode="nearest")[:, 0].long()
        present = small[small != ignore_index].unique()
        if not len(present):
            zero = mine.sum() * 0
            return PrototypeTerms(zero, zero, theirs.sum() * 0)
        own, other = (_class_means(features, small, present) for features in (mine, theirs))
        own_logits, other_logits = (
            self.scale * torch.einsum("bdhw,nd->bnhw", features, means)
            for features, means in ((mine, own), (theirs, other))
        )
        kl = F.kl_div(own_logits.log_softmax(1), other_logits.detach().softmax(1), reduction="sum") / own_logits.numel()
        align = 0.5 * (1 - (own * other.detach()).sum(1)).mean()
        # A class that is not in the group has no prototype: its logit is 0.
        every = other_logits.new_zeros(len(small), num_classes, *small.shape[-2:]).index_copy(1, present, other_logits)
        return PrototypeTerms(kl, align, mask_loss(resize(every, masks.shape[-2:]), masks, ignore_index))


def _class_means(features: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """The normalized mean of ``features[B, D, h, w]`` over the pixels of each label in ``present[N]``: ``[N, D]``."""
    rows = features.movedim(1, -1).flatten(0, -2)
    members = (labels.flatten()[None] == present[:, None]).to(rows.dtype)
    return F.normalize(members @ rows / members.sum(1, keepdim=True), dim=1)
