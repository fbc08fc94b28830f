"""Distillation of features: the loss compares stages of teacher and student in place of their logits.

    loss = ce_weight · CE(student logits, y) + min(e/w, 1) · feature loss(student features, teacher features)

e is the epoch, counted from 1, and w ``warmup_epochs``. Features are collected in one forward pass per network, by the
hooks of ``dkl.models.features``: the inputs of the classifier, and the output of each stage that the network names.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Batch
from dkl.errors import UserError
from dkl.models.features import Features, forward_with_features
from dkl.tasks.base import Output, Progress, count_correct
from dkl.tasks.distillation.features import FeatureLoss
from dkl.tasks.distillation.logits import Distillation
from dkl.tasks.mixing import label_loss, likeliest
from dkl.validation import SIDE


class FeatureDistillation(Distillation):
    """Distills ``teacher`` into ``model`` by ``loss`` between their features; images have ``shape`` (C, H, W).

    ``settings`` are those of ``Distillation``. The loss's own parameters have names that start with ``loss.``, are
    trained by the same optimizer and belong to the task's state; after training they are not needed. Features are
    compared in the weights' precision, also under autocast. On several processes the running statistics of the loss's
    BatchNorm are not synchronized, and the first process's are saved; training never reads them.
    """

    loss: FeatureLoss

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

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the student and of the loss."""
        return chain(self.model.named_parameters(), self.loss.named_parameters(prefix="loss"))

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        images, labels = self.mixing(batch, progress)
        (logits, mine), (_, theirs) = self._forward(images)
        warm = self.warmup(progress)
        # Distances between bfloat16 features would be mostly rounding errors.
        dtype = next(self.model.parameters()).dtype
        with torch.autocast(logits.device.type, enabled=False):
            mine, theirs = (Features([s.to(dtype) for s in f.stages], f.pooled.to(dtype)) for f in (mine, theirs))
            distance = self.loss(mine, theirs)
        loss = self.ce_weight * label_loss(logits, labels, binary=self.bce) + warm * distance
        yield Output(loss, {"natural_correct": count_correct(logits, likeliest(labels))})

    def state_dict(self) -> dict[str, Any]:
        """The state of ``Distillation`` with the loss's parameters."""
        return super().state_dict() | {"loss": self.loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.loss.load_state_dict(state["loss"])
