"""Distillation for segmentation, per pixel: the place of IKL in APD (Table 17).

    loss = ce_weight · CE + aux_weight · CE(auxiliary) + loss_weight · min(e/w, 1) · pair loss(teacher, student)
           + prototype_weight · prototype KL + align_weight · prototype alignment

The pair loss is any of ``dkl.losses``, teacher first, averaged over pixels; with ``mean_over_classes`` it is also
divided by the number of classes, as APD's ``nn.KLDivLoss()`` does: its weight of 10 is then 10/150 of the mean KL per
pixel on ADE20K. The last two terms are APD's, see ``Prototypes``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl import validation as allowed
from dkl.console import say
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import BatchNormalized, ClassPrior, PairLoss, RowLoss, wanted_arguments
from dkl.models import forward_dense, load_encoder
from dkl.models.features import DenseOutput, feature_channels, native_classifier
from dkl.models.networks.pspnet import resize
from dkl.runtime.distributed import sum_gradients
from dkl.tasks.base import Output, Progress
from dkl.tasks.distillation.logits import Distillation
from dkl.tasks.segmentation import PixelTask, mask_loss
from dkl.validation import check_arguments

ADAM_BETAS = (0.9, 0.99)


class PrototypeTerms(NamedTuple):
    """Scalars: the student's two terms, and the loss of the teacher's adapter."""

    kl: Tensor
    align: Tensor
    teacher: Tensor


class Prototypes(nn.Module):
    """The two prototype terms of APD (Tian et al., TPAMI 2022): class means of features as classifiers of pixels.

    Features of student and teacher go through an adapter each (1×1 convolution, ReLU, 1×1 convolution, ``width`` wide)
    and are normalized. The prototype of a class is the normalized mean over its pixels in a group of images, in APD the
    two of one GPU. With the cosines between pixels and the prototypes of the classes in the group, times ``scale``, as
    logits,

        kl     the mean of nn.KLDivLoss of the student's logits against the teacher's (over pixels, prototypes, images)
        align  the mean over prototypes of ½ (1 − cos(student's, teacher's))

    The teacher's adapter is trained by itself, by the cross-entropy of its logits with the mask, with its own Adam. The
    terms are means over groups of ``images`` images; None takes all images as one group.
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
        self.student, self.teacher = (
            nn.Sequential(nn.Conv2d(count or 0, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1))
            for count in channels
        )
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

    Without ``masked`` all pixels count, as in APD's KL. A loss with ``rows`` takes the logits as they are, unless it is
    normalized over the batch; any other gets the pixels that count as rows ``[P, C]``, which copies them. Class-wise
    weights are the prior's rows of the pixels' labels. Zero, with a graph, if no pixel counts.
    """
    counted = masks != ignore_index if masked else torch.ones_like(masks, dtype=torch.bool)
    if isinstance(loss, RowLoss) and loss.weighting != "label" and not isinstance(loss, BatchNormalized):
        weights = {}
        if loss.weighting == "class" and prior is not None:
            labels = torch.where(masks == ignore_index, 0, masks)
            # Rows of the prior as [B, C, H, W], in the student's memory layout.
            last = student.stride(1) == 1
            weights["weights"] = prior[labels].movedim(-1, 1) if last else prior.table.T[:, labels].movedim(0, 1)
        values = loss.rows(teacher, student, **weights)
        return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
    if not counted.any():
        return student.sum() * 0
    rows = (logits.movedim(1, -1)[counted] for logits in (teacher, student))
    return loss(*rows, **wanted_arguments(loss, masks[counted], prior))


def _class_means(features: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """The normalized mean of ``features[B, D, h, w]`` over the pixels of each label in ``present[N]``: ``[N, D]``."""
    rows = features.movedim(1, -1).flatten(0, -2)
    members = (labels.flatten()[None] == present[:, None]).to(rows.dtype)
    return F.normalize(members @ rows / members.sum(1, keepdim=True), dim=1)


class SegmentationDistillation(PixelTask, Distillation):
    """Distills ``teacher`` into ``model``, both of which label pixels, with ``loss``.

    ``masked`` leaves ignored pixels out of ``loss``; APD's KL takes them in. ``upsample`` compares logits at the size
    of the masks; without it, before up-sampling. ``prototype_weight`` and ``align_weight`` switch APD's two terms on;
    their adapters are ``prototype_width`` wide, cosines are multiplied by ``prototype_scale``, and the teacher's
    adapter has the rate ``teacher_lr``. The student's is trained by the run's optimizer, under names that start with
    ``adapter``. ``prototype_images`` images share their prototypes; None takes the whole batch of a process.

    ``prior_temperature``, ``prior_momentum`` and ``warmup_epochs`` are those of ``Distillation``; the class prior has
    the teacher's predictions by the label of the pixel. Other arguments are those of ``Segmentation``.
    """

    kept = ("prior", "prototypes", "adam")

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        loss: PairLoss | None,
        *,
        num_classes: Annotated[int, allowed.CLASSES],
        ignore_index: Annotated[int | None, allowed.LABEL],
        ce_weight: Annotated[float, allowed.WEIGHT] = 1.0,
        aux_weight: Annotated[float, allowed.WEIGHT] = 0.4,
        loss_weight: Annotated[float, allowed.WEIGHT] = 10.0,
        mean_over_classes: bool = True,
        masked: bool = True,
        upsample: bool = True,
        prototype_weight: Annotated[float, allowed.WEIGHT] = 0.0,
        align_weight: Annotated[float, allowed.WEIGHT] = 0.0,
        prototype_width: Annotated[int, allowed.Range(1, 10_000)] = 512,
        prototype_images: Annotated[int | None, allowed.COUNT] = None,
        prototype_scale: Annotated[float, allowed.Range(0, 1000, above=True, usual=(0.1, 100))] = 10.0,
        teacher_lr: Annotated[float, allowed.RATE] = 1e-5,
        warmup_epochs: Annotated[int, allowed.EPOCHS] = 0,
        prior_temperature: Annotated[float, allowed.TEMPERATURE] = 1.0,
        prior_momentum: Annotated[float, allowed.PRIOR_MOMENTUM] = 1.0,
        encoder_weights: str | None = None,
    ) -> None:
        self.use_masks(ignore_index, aux_weight)
        super().__init__(
            model,
            teacher,
            loss,
            num_classes=num_classes,
            ce_weight=ce_weight,
            warmup_epochs=warmup_epochs,
            prior_temperature=prior_temperature,
            prior_momentum=prior_momentum,
        )
        if not masked and self.loss.weighting in ("class", "label"):
            raise UserError(
                f"task.masked=false compares pixels without a label, but {type(self.loss).__name__} asks for labels: "
                "set task.masked=true, or loss.weighting=sample"
            )
        for network in () if upsample else (model, teacher):
            if native_classifier(network) is None:
                raise UserError(
                    f"the logits of {type(network).__name__} before up-sampling are not known: set task.upsample=true, "
                    "or declare feature_classifier on it (see dkl.models.features)"
                )
        self.loss_weight = loss_weight / (num_classes if mean_over_classes else 1)
        self.masked, self.upsample = masked, upsample
        self.prototype_weight, self.align_weight = prototype_weight, align_weight
        self.prototypes: Prototypes | None = None
        if prototype_weight or align_weight:
            parameter = next(model.parameters())
            self.prototypes = Prototypes(
                model, teacher, width=prototype_width, scale=prototype_scale, images=prototype_images
            )
            self.prototypes.to(parameter.device, parameter.dtype)
            self.adam = torch.optim.Adam(self.prototypes.teacher.parameters(), teacher_lr, ADAM_BETAS)
        load_encoder(model, encoder_weights)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The student's parameters, and those of its adapter."""
        adapter = self.prototypes.student.named_parameters("adapter") if self.prototypes else ()
        return chain(self.model.named_parameters(), adapter)

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Print the teacher's mean IoU on ``testing``. Raises UserError if it is no better than chance."""
        metrics, chance = self.test(self.teacher, testing), 1 / (2 * self.num_classes)
        say(
            f"teacher {type(self.teacher).__name__} {self.fingerprint[:8]}: mean IoU {metrics['miou']:.2%}, pixel "
            f"accuracy {metrics['accuracy']:.2%}"
        )
        if metrics["miou"] < chance:
            raise UserError(
                f"the teacher's mean IoU is {metrics['miou']:.2%}, and that of random labels about "
                f"{chance:.2%}: give weights trained on these classes, in this order, with this "
                "normalization"
            )

    def _pair_loss(self, student: DenseOutput, teacher: DenseOutput, masks: Tensor) -> Tensor:
        """The pair loss, with the class prior of the epoch before; this batch enters the prior of the next."""
        mine, theirs = student.logits, teacher.logits
        if not self.upsample:
            assert student.native is not None
            assert teacher.native is not None
            mine, theirs = student.native, teacher.native
            if mine.shape != theirs.shape:
                raise UserError(
                    f"task.upsample=false compares logits of {list(mine.shape[-2:])} pixels with the teacher's of "
                    f"{list(theirs.shape[-2:])}: set task.upsample=true, or choose networks with equal output strides"
                )
            masks = shrunk(masks, mine.shape[-2:])
        value = pixel_loss(
            self.loss, theirs, mine, masks, ignore_index=self.ignore_index, prior=self.prior, masked=self.masked
        )
        if self.loss.weighting == "class":
            self.prior.observe(theirs, masks, self.prior_temperature, self.ignore_index)
        return value

    def _prototype_loss(self, student: DenseOutput, teacher: DenseOutput, batch: Batch) -> Tensor:
        """APD's two terms; the teacher's adapter takes its own step."""
        assert self.prototypes is not None
        assert student.features is not None
        assert teacher.features is not None
        terms = self.prototypes(
            student.features,
            teacher.features,
            batch.labels,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
        )
        own = list(self.prototypes.teacher.parameters())
        for parameter, gradient in zip(own, torch.autograd.grad(terms.teacher, own), strict=True):
            parameter.grad = gradient * batch.share
        sum_gradients(own)
        self.adam.step()
        return self.prototype_weight * terms.kl + self.align_weight * terms.align

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        student = forward_dense(self.model, batch.images)
        with torch.no_grad():
            teacher = forward_dense(self.teacher, batch.images)
        masks = batch.labels
        loss = self.label_loss(student, masks)
        loss = loss + self.warmup(progress) * self.loss_weight * self._pair_loss(student, teacher, masks)
        if self.prototypes:
            loss = loss + self._prototype_loss(student, teacher, batch)
        yield self.output(loss, student.logits, masks)
