"""Distillation of features: the loss compares stages of teacher and student in place of their logits.

    loss = ce_weight · CE(student logits, y) + min(e/w, 1) · feature loss(student features, teacher features)

e is the epoch, counted from 1, and w ``warmup_epochs``. Features are collected in one forward pass per network, by the
hooks of ``dkl.models.features``: the inputs of the classifier, and the output of each stage that the network names.

With s_i and t_i the features of stage i, counted from 1 after the stem, and p and q the inputs of the classifiers:

    FitNet    weight · MSE(r(s_2), t_2)                       r: trained convolution, BatchNorm and ReLU
    AT        weight · Σ_i MSE(a(s_i), a(t_i))                a(f): mean over channels of f², flattened, of norm 1
    RKD       distance_weight · Huber(d(p), d(q)) + angle_weight · Huber(∠(p), ∠(q))        over pairs and triplets
    ReviewKD  weight · Σ_i HCL(f_i, t_i)                      f_i fuses s_i, s_i+1 …, p; t_i is taken before its ReLU

r, AT, RKD, HCL and the fusion come from torchdistill (``pip install 'dkl[features]'``). It is imported only when one of
these losses is made.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch
from dkl.errors import UserError, needs_extra
from dkl.losses import Weighting
from dkl.models.features import Features, forward_with_features
from dkl.tasks.base import Progress
from dkl.tasks.distillation.logits import Distillation
from dkl.validation import SIDE, WEIGHT, Range, check_arguments


def _library(part: str) -> Any:
    """Import a module of torchdistill. Raises NotInstalledError if the library is missing."""
    with needs_extra("features"):
        return import_module(f"torchdistill.{part}")


def _pairs(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """The stages of both, paired. Raises UserError if there are none, or unequal numbers."""
    mine, theirs = len(student.stages), len(teacher.stages)
    if not mine or mine != theirs:
        raise UserError(
            f"the student has {mine} stages whose features are known and the teacher {theirs}: choose networks with "
            "the same number, such as ResNets for CIFAR, or task=rkd or task=distillation, which take any network"
        )
    return list(zip(student.stages, teacher.stages, strict=True))


def _as_output(features: Tensor) -> dict[str, Tensor]:
    """The dictionary in which torchdistill's losses look for features."""
    return {"output": features}


class FeatureLoss(nn.Module):
    """A loss between features; as a module it may have parameters that are trained with the student.

    ``student_before`` and ``teacher_before``: are stages taken before the activation at their end?
    """

    weighting: ClassVar[Weighting] = "none"
    student_before = False
    teacher_before: ClassVar[bool] = False

    def connect(self, student: Features, teacher: Features) -> None:
        """Create the layers that features of these shapes need. Raises UserError if the shapes do not fit."""


class FitNet(FeatureLoss):
    """FitNets (Romero et al. 2015) as in RepDistiller and mdistiller: trained with the labels, in one phase."""

    @check_arguments("task.loss")
    def __init__(self, *, weight: Annotated[float, WEIGHT] = 100.0, stage: Annotated[int, Range(1, 100)] = 2) -> None:
        super().__init__()
        self.weight, self.stage = weight, stage

    def _pair(self, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
        pairs = _pairs(student, teacher)
        if not 1 <= self.stage <= len(pairs):
            raise UserError(f"task.loss.stage={self.stage} must be one of the {len(pairs)} stages, counted from 1")
        return pairs[self.stage - 1]

    def connect(self, student: Features, teacher: Features) -> None:
        """Create the regressor from the student's map ``[B, C, H, W]`` of the stage to the teacher's.

        Raises UserError if the numbers of stages differ, if there is no such stage, or if the sizes do not fit.
        """
        mine, theirs = self._pair(student, teacher)
        planes, size, other = (mine.shape[1], theirs.shape[1]), mine.shape[-1], theirs.shape[-1]
        if size < other != 2 * size:
            raise UserError(
                f"stage {self.stage} is {size} pixels wide and the teacher's {other}: set task.loss.stage to a stage "
                "in which the student is as wide as the teacher, half as wide, or wider"
            )
        # As mdistiller: halve by a strided convolution, double by a transposed one, else shrink by an unpadded kernel.
        kernel, stride, padding = (3, 2, 1) if size == 2 * other else (1 + max(size - other, 0), 1, 0)
        self.regressor = _library("models.adaptation").ConvReg(*planes, kernel, stride, padding)
        # torchdistill's regressor can only shrink or keep a size.
        if other == 2 * size:
            self.regressor.conv = nn.ConvTranspose2d(*planes, 4, stride=2, padding=1)

    def forward(self, student: Features, teacher: Features) -> Tensor:
        """The loss, a scalar: the mean over the teacher's map ``[B, C, H, W]``."""
        mine, theirs = self._pair(student, teacher)
        return self.weight * F.mse_loss(self.regressor(mine), theirs)


class AT(FeatureLoss):
    """Attention transfer (Zagoruyko & Komodakis 2017), as the authors' code; the larger map is average-pooled first."""

    @check_arguments("task.loss")
    def __init__(self, *, weight: Annotated[float, Range(0, 1e6, usual=(0, 10_000))] = 1000.0) -> None:
        super().__init__()
        self.weight, self.make = weight, _library("losses.mid_level").ATLoss

    def connect(self, student: Features, teacher: Features) -> None:
        """Create torchdistill's loss, with one pair per stage. Raises UserError if the numbers of stages differ."""
        ends = [{"path": stage, "io": "output"} for stage in range(len(_pairs(student, teacher)))]
        self.loss = self.make({end["path"]: {"student": end, "teacher": end} for end in ends})

    def forward(self, student: Features, teacher: Features) -> Tensor:
        """The loss, a scalar, of maps ``[B, C, H, W]``; the numbers of channels may differ."""
        mine, theirs = {}, {}
        for stage, pair in enumerate(_pairs(student, teacher)):
            size = min(features.shape[-1] for features in pair)
            mine[stage], theirs[stage] = (_as_output(F.adaptive_avg_pool2d(features, size)) for features in pair)
        return self.weight * self.loss(mine, theirs)


class RKD(FeatureLoss):
    """Relational knowledge distillation (Park et al. 2019) of the classifiers' inputs; networks need no known stages.

    On several processes, pairs and triplets are formed within each process's share of the batch.
    """

    @check_arguments("task.loss")
    def __init__(
        self, *, distance_weight: Annotated[float, WEIGHT] = 25.0, angle_weight: Annotated[float, WEIGHT] = 50.0
    ) -> None:
        super().__init__()
        loss = _library("losses.mid_level").RKDLoss
        self.loss = loss("p", "p", dist_factor=distance_weight, angle_factor=angle_weight, reduction="mean")

    def forward(self, student: Features, teacher: Features) -> Tensor:
        """The loss, a scalar, of the classifiers' inputs ``[B, C]``, whose widths may differ; 0 of a single image."""
        if len(student.pooled) < 2:
            return student.pooled.sum() * 0
        return self.loss({"p": _as_output(student.pooled)}, {"p": _as_output(teacher.pooled)})


class ReviewKD(FeatureLoss):
    """Knowledge review (Chen et al. 2021): later student stages are fused into earlier ones and imitate the teacher's.

    ``student_before`` takes the student's stages before their activation too, as on ImageNet. If sizes differ, fused
    features are resized to the teacher's before their last convolution.
    """

    teacher_before = True
    widest = 512

    @check_arguments("task.loss")
    def __init__(self, *, weight: Annotated[float, WEIGHT] = 1.0, student_before: bool = False) -> None:
        super().__init__()
        self.weight, self.student_before = weight, student_before
        self.fusion = _library("models.wrapper").AttentionBasedFusion
        self.loss = _library("losses.mid_level").HierarchicalContextLoss("s", "output", "t", "output")

    @staticmethod
    def _maps(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """All stages, and the classifiers' inputs as maps of one pixel, from last to first."""
        pooled = (student.pooled[..., None, None], teacher.pooled[..., None, None])
        return [*_pairs(student, teacher), pooled][::-1]

    def connect(self, student: Features, teacher: Features) -> None:
        """Create one fusion per stage, for maps ``[B, C, H, W]``, and one for the classifiers' inputs ``[B, C]``.

        Raises UserError if the numbers of stages differ.
        """
        self.fusions = nn.ModuleList()
        middle = min(self.widest, student.pooled.shape[1])
        for mine, theirs in self._maps(student, teacher):
            fusion = self.fusion(mine.shape[1], middle, theirs.shape[1], uses_attention=bool(self.fusions))
            # Fused maps have the student's size; conv2 makes those that are compared with the teacher's.
            if mine.shape[-2:] != theirs.shape[-2:]:
                fusion.conv2.insert(0, nn.Upsample(size=theirs.shape[-2:]))
            self.fusions.append(fusion)

    def forward(self, student: Features, teacher: Features) -> Tensor:
        """The loss, a scalar: the sum over stages and classifiers' inputs, from last to first."""
        # From the last stage to the first: ``carried`` is the fused map that the next, earlier stage is fused with.
        total, carried = student.pooled.new_zeros(()), None
        for fusion, (mine, theirs) in zip(self.fusions, self._maps(student, teacher), strict=True):
            fused, carried = fusion(mine, carried, mine.shape[-1])
            total = total + self.loss({"s": {"output": (fused, carried)}}, {"t": _as_output(theirs)})
        return self.weight * total


class FeatureDistillation(Distillation):
    """Distills ``teacher`` into ``model`` by ``loss`` between their features; images have ``shape`` (C, H, W).

    ``settings`` are those of ``Distillation``. The loss's own parameters have names that start with ``loss.``, are
    trained by the same optimizer and belong to the task's state; after training they are not needed. Features are
    compared in the weights' precision, also under autocast. On several processes the running statistics of the loss's
    BatchNorm are not synchronized, and the first process's are saved; training never reads them.
    """

    loss: FeatureLoss
    kept = ("prior", "loss")

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        loss: FeatureLoss,
        *,
        shape: Annotated[Sequence[int], SIDE],
        **settings: Any,
    ) -> None:
        if not isinstance(loss, FeatureLoss):
            raise UserError(
                f"task.loss: {type(loss).__name__} is not a feature loss: derive it from "
                "dkl.tasks.distillation.features.FeatureLoss, or choose task=distillation"
            )
        super().__init__(model, teacher, loss, **settings)
        if self.cache_teacher:
            raise UserError("a teacher's features are too large to cache: set task.cache_teacher=false")
        # One forward of two blank images tells the loss the shapes of all features, from which it makes its layers.
        parameter = next(model.parameters())
        images = torch.zeros(2, *shape, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad(), frozen_eval(model):
            (_, mine), (_, theirs) = self._forward(images)
        self.loss.connect(mine, theirs)
        self.loss.to(parameter.device, parameter.dtype)

    def _forward(self, images: Tensor) -> tuple[tuple[Tensor, Features], tuple[Tensor, Features]]:
        """Logits and features of the student and of the teacher."""
        student = forward_with_features(self.model, images, before_activation=self.loss.student_before)
        with torch.no_grad():
            teacher = forward_with_features(self.teacher, images, before_activation=self.loss.teacher_before)
        return student, teacher

    def compare(self, images: Tensor, labels: Tensor, batch: Batch, progress: Progress) -> tuple[Tensor, Tensor]:
        """The student's logits, and the loss between the features of both networks."""
        (logits, mine), (_, theirs) = self._forward(images)
        # Distances between bfloat16 features would be mostly rounding errors.
        dtype = next(self.model.parameters()).dtype
        with torch.autocast(logits.device.type, enabled=False):
            mine, theirs = (Features([s.to(dtype) for s in f.stages], f.pooled.to(dtype)) for f in (mine, theirs))
            return logits, self.loss(mine, theirs)
