"""Distillation of features: a loss between a teacher's and a student's stages in place of one between their logits.

    loss = ce_weight · CE(student logits, y) + min(e/w, 1) · method(student features, teacher features)

e is the epoch, counted from 1, w ``warmup_epochs``. With s_i and t_i the features of stage i, counted from 1 after the
stem, and p and q what the classifiers take:

    FitNet    weight · MSE(r(s_2), t_2)                       r a convolution, BatchNorm and ReLU that are trained along
    AT        weight · Σ_i MSE(a(s_i), a(t_i))                a(f) = mean over channels of f², as a vector of norm 1
    RKD       distance_weight · Huber(d(p), d(q)) + angle_weight · Huber(∠(p), ∠(q))        over pairs and triplets
    ReviewKD  weight · Σ_i HCL(f_i, t_i)                      f_i fuses s_i, s_i+1 …, p; t_i is before its ReLU

r, AT, RKD, HCL and the fusion are torchdistill's (``pip install 'dkl[features]'``), imported where they are chosen.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch
from dkl.errors import UserError, needs_extra
from dkl.losses.divergences import Weighting
from dkl.models.features import Features, forward_with_features
from dkl.tasks.base import Output, Progress, count_correct
from dkl.tasks.distillation.logits import Distillation
from dkl.tasks.mixing import label_loss, likeliest


def _library(part: str) -> Any:
    """Import a module of torchdistill. Raises NotInstalledError if the library is missing."""
    with needs_extra("features"):
        return import_module(f"torchdistill.{part}")


def _pairs(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """The stages of both side by side. Raises UserError where there are none, or not as many."""
    mine, theirs = len(student.stages), len(teacher.stages)
    if not mine or mine != theirs:
        raise UserError(
            f"the student has {mine} stages whose features are known and the teacher {theirs}: choose networks with as "
            "many, such as ResNets for CIFAR, or task=rkd or task=distillation, which take any"
        )
    return list(zip(student.stages, teacher.stages, strict=True))


def _taken(features: Tensor) -> dict[str, Tensor]:
    """As torchdistill's losses look for it."""
    return {"output": features}


class FeatureLoss(nn.Module):
    """A loss between features, with whatever it trains along.

    ``student_before`` and ``teacher_before`` say whether stages are taken before the activation at their end.
    """

    weighting: ClassVar[Weighting] = "none"
    student_before = False
    teacher_before: ClassVar[bool] = False

    def __init__(self, **weights: float) -> None:
        super().__init__()
        for name, value in weights.items():
            if not 0 <= value < math.inf:
                raise UserError(f"task.loss.{name}={value} must be a number of at least 0")

    def connect(self, student: Features, teacher: Features) -> None:
        """Make what features of these shapes need. Raises UserError where they do not go together."""


class FitNet(FeatureLoss):
    """FitNets (Romero et al. 2015) as RepDistiller and mdistiller run it: beside the labels, in one go."""

    def __init__(self, *, weight: float = 100.0, stage: int = 2) -> None:
        super().__init__(weight=weight)
        self.weight, self.stage = weight, stage

    def _pair(self, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
        pairs = _pairs(student, teacher)
        if not 1 <= self.stage <= len(pairs):
            raise UserError(f"task.loss.stage={self.stage} must be one of the {len(pairs)} stages, counted from 1")
        return pairs[self.stage - 1]

    def connect(self, student: Features, teacher: Features) -> None:
        mine, theirs = self._pair(student, teacher)
        planes, size, other = (mine.shape[1], theirs.shape[1]), mine.shape[-1], theirs.shape[-1]
        if size < other != 2 * size:
            raise UserError(f"stage {self.stage} is {size} pixels wide, the teacher's {other}: set task.loss.stage")
        kernel, stride, padding = (3, 2, 1) if size == 2 * other else (1 + max(size - other, 0), 1, 0)
        self.regressor = _library("models.adaptation").ConvReg(*planes, kernel, stride, padding)
        if other == 2 * size:
            self.regressor.conv = nn.ConvTranspose2d(*planes, 4, stride=2, padding=1)

    def forward(self, student: Features, teacher: Features) -> Tensor:
        mine, theirs = self._pair(student, teacher)
        return self.weight * F.mse_loss(self.regressor(mine), theirs)


class AT(FeatureLoss):
    """Attention transfer (Zagoruyko & Komodakis 2017), the authors' code; the larger of two maps is averaged first."""

    def __init__(self, *, weight: float = 1000.0) -> None:
        super().__init__(weight=weight)
        self.weight, self.make = weight, _library("losses.mid_level").ATLoss

    def connect(self, student: Features, teacher: Features) -> None:
        ends = [{"path": stage, "io": "output"} for stage in range(len(_pairs(student, teacher)))]
        self.loss = self.make({end["path"]: {"student": end, "teacher": end} for end in ends})

    def forward(self, student: Features, teacher: Features) -> Tensor:
        mine, theirs = {}, {}
        for stage, pair in enumerate(_pairs(student, teacher)):
            size = min(features.shape[-1] for features in pair)
            mine[stage], theirs[stage] = (_taken(F.adaptive_avg_pool2d(features, size)) for features in pair)
        return self.weight * self.loss(mine, theirs)


class RKD(FeatureLoss):
    """Relational knowledge distillation (Park et al. 2019) of what the classifiers take; it asks no stages of networks.

    On several processes pairs and triplets are those of each one's share of the batch.
    """

    def __init__(self, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__(distance_weight=distance_weight, angle_weight=angle_weight)
        loss = _library("losses.mid_level").RKDLoss
        self.loss = loss("p", "p", dist_factor=distance_weight, angle_factor=angle_weight, reduction="mean")

    def forward(self, student: Features, teacher: Features) -> Tensor:
        return self.loss({"p": _taken(student.pooled)}, {"p": _taken(teacher.pooled)})


class ReviewKD(FeatureLoss):
    """Knowledge review (Chen et al. 2021): the student's later stages, fused into the earlier, imitate the teacher's.

    ``student_before`` takes the student's stages before their activation too, as on ImageNet. Where sizes differ, what
    is fused takes the teacher's before its last convolution.
    """

    teacher_before = True
    widest = 512

    def __init__(self, *, weight: float = 1.0, student_before: bool = False) -> None:
        super().__init__(weight=weight)
        self.weight, self.student_before = weight, student_before
        self.fusion = _library("models.wrapper").AttentionBasedFusion
        self.loss = _library("losses.mid_level").HierarchicalContextLoss("s", "output", "t", "output")

    @staticmethod
    def _maps(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """All stages, and what the classifiers take as maps of one pixel, from the last to the first."""
        pooled = (student.pooled[..., None, None], teacher.pooled[..., None, None])
        return [*_pairs(student, teacher), pooled][::-1]

    def connect(self, student: Features, teacher: Features) -> None:
        self.fusions = nn.ModuleList()
        middle = min(self.widest, student.pooled.shape[1])
        for mine, theirs in self._maps(student, teacher):
            fusion = self.fusion(mine.shape[1], middle, theirs.shape[1], uses_attention=bool(self.fusions))
            if mine.shape[-2:] != theirs.shape[-2:]:
                fusion.conv2.insert(0, nn.Upsample(size=theirs.shape[-2:]))
            self.fusions.append(fusion)

    def forward(self, student: Features, teacher: Features) -> Tensor:
        total, carried = student.pooled.new_zeros(()), None
        for fusion, (mine, theirs) in zip(self.fusions, self._maps(student, teacher), strict=True):
            fused, carried = fusion(mine, carried, mine.shape[-1])
            total = total + self.loss({"s": {"output": (fused, carried)}}, {"t": _taken(theirs)})
        return self.weight * total


class FeatureDistillation(Distillation):
    """Distillation of ``teacher`` into ``model`` by ``loss`` between their features of images of ``shape`` (C, H, W).

    ``settings`` are those of ``Distillation``. What the loss trains along has names that start with ``loss.``, is
    trained by the same optimiser and belongs to the task's state; nothing of it is needed afterwards. Features are
    compared in the weights' precision, also under autocast. On several processes its BatchNorm keeps each process's own
    running statistics, and the first's are saved; training never reads them.
    """

    loss: FeatureLoss

    def __init__(
        self, model: nn.Module, teacher: nn.Module, loss: FeatureLoss, *, shape: Sequence[int], **settings: Any
    ) -> None:
        super().__init__(model, teacher, loss, **settings)
        if self.cache_teacher:
            raise UserError("a teacher's features are too many to keep: set task.cache_teacher=false")
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

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains: the student, and what the loss trains along."""
        return chain(self.model.named_parameters(), self.loss.named_parameters(prefix="loss"))

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        images, labels = self.mixing(batch, progress)
        (logits, mine), (_, theirs) = self._forward(images)
        warm = min(progress.epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        dtype = next(self.model.parameters()).dtype
        with torch.autocast(logits.device.type, enabled=False):
            mine, theirs = (Features([s.to(dtype) for s in f.stages], f.pooled.to(dtype)) for f in (mine, theirs))
            distance = self.loss(mine, theirs)
        loss = self.ce_weight * label_loss(logits, labels, binary=self.bce) + warm * distance
        yield Output(loss, {"natural_correct": count_correct(logits, likeliest(labels))})

    def state_dict(self) -> dict[str, Any]:
        """That of ``Distillation``, and what the loss trains along."""
        return super().state_dict() | {"loss": self.loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        super().load_state_dict(state)
        self.loss.load_state_dict(state["loss"])
