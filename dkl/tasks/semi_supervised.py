"""Semi-supervised training of Table 16: few labels, and two views of unlabeled images whose predictions should agree.

    loss = CE(labeled logits, y) + unlabeled_weight · r(t) · (1/U) Σ_u mask_u · loss(weak_u, strong_u)

``loss`` is any pair loss of logits, the weak view first. The mask is 1 if the largest probability of the weak
prediction is at least ``threshold``, and r(t) = min(t / rampup, 1) at the share t of training (1 without a ramp).
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import batch_statistics, untracked_batch_norm
from dkl.data import Batch, Unlabeled
from dkl.errors import UserError
from dkl.losses import PairLoss, check_pair_loss
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.validation import FRACTION, WEIGHT, check_arguments


class ConsistencyTraining(Task):
    """Cross-entropy on labeled images plus ``loss`` between two views of unlabeled ones.

    ``threshold`` in [0, 1) masks uncertain weak predictions; 0 takes all. ``unlabeled_weight`` weights the loss,
    ``rampup`` in [0, 1) is the share of training in which the weight rises from 0; 0 for no rise.
    """

    needs_unlabeled: ClassVar[bool] = True

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss | None,
        *,
        threshold: Annotated[float, FRACTION] = 0.95,
        unlabeled_weight: Annotated[float, WEIGHT] = 1.0,
        rampup: Annotated[float, FRACTION] = 0.0,
    ) -> None:
        if not loss:
            raise UserError("semi-supervised training needs a loss between two views: choose loss=pseudo_label_ce")
        loss = check_pair_loss(loss)
        if loss.weighting in ("class", "label"):
            raise UserError(
                f"{type(loss).__name__} has weighting={loss.weighting}, but unlabeled images have no class: set "
                "loss.weighting=sample, or choose another loss"
            )
        self.model, self.loss = model, loss
        self.threshold, self.unlabeled_weight, self.rampup = threshold, unlabeled_weight, rampup

    @abstractmethod
    def logits(self, images: Tensor, unlabeled: Unlabeled) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of labeled ``images``, of the weak and of the strong views; the weak ones only compare."""

    def ramp(self, progress: Progress) -> float:
        """The factor r(t) in [0, 1] of the unlabeled loss; t counts updates from 0."""
        if not self.rampup:
            return 1.0
        done = (progress.epoch - 1) * progress.steps + progress.step
        return min(done / (self.rampup * progress.epochs * progress.steps), 1.0)

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        assert batch.unlabeled is not None
        labeled, weak, strong = self.logits(batch.images, batch.unlabeled)
        supervised = F.cross_entropy(labeled, batch.labels)
        selected = weak.detach().softmax(-1).amax(-1) >= self.threshold
        unlabeled = strong.sum() * 0  # keeps the graph, so that every parameter has a gradient
        if selected.any():
            # (1/U) Σ mask · loss, from the mean of the loss over the selected images. In the loss's dtype, float32 or
            # more: the logits may be bfloat16, which would round the share.
            agreement = self.loss(weak[selected], strong[selected])
            unlabeled = selected.to(agreement.dtype).mean() * agreement
        loss = supervised + self.unlabeled_weight * self.ramp(progress) * unlabeled
        right = (weak.argmax(-1) == batch.unlabeled.labels) & selected
        count, everyone = selected.sum(), selected.new_tensor(len(selected), dtype=torch.int64)
        size = len(batch.labels)
        yield Output(
            loss,
            {
                "natural_correct": count_correct(labeled, batch.labels),
                "labeled_loss": supervised.detach() * size,
                "unlabeled_loss": unlabeled.detach() * size,
            },
            ratios={"mask_rate": (count, everyone), "pseudo_label_accuracy": (right.sum(), count)},
        )


class FixMatch(ConsistencyTraining):
    """FixMatch (Sohn et al. 2020): the network's confident prediction on a weak view is the target of the strong view.

    As in USB with ``use_cat``, one forward takes labeled, weak and strong images, so that BatchNorm sees all of them.
    The pair loss decides what the weak prediction gets: a hard label or a soft target stops its gradient, and the wMSE
    of IKL does not.
    """

    def logits(self, images: Tensor, unlabeled: Unlabeled) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.model(torch.cat([images, unlabeled.weak, unlabeled.strong]))
        labeled, weak, strong = logits.split([len(images), len(unlabeled.weak), len(unlabeled.strong)])
        return labeled, weak, strong


class MeanTeacher(ConsistencyTraining):
    """Mean-Teacher (Tarvainen & Valpola 2017): the averaged network's prediction on a weak view is the target.

    The teacher is the run's average of the weights, which needs ``averaging.per=step`` and is also evaluated. As in USB
    it predicts in train mode (with dropped paths), and BatchNorm's running statistics follow the labeled images only.
    """

    needs_average: ClassVar[bool] = True
    teacher: nn.Module | None = None

    def use_average(self, average: nn.Module) -> None:
        self.teacher = average

    def logits(self, images: Tensor, unlabeled: Unlabeled) -> tuple[Tensor, Tensor, Tensor]:
        """The student's logits of labeled images and second views, the teacher's of the weak views."""
        if self.teacher is None:
            raise UserError("task=mean_teacher needs an average of the weights: set averaging=ema_999")
        labeled = self.model(images)
        with torch.no_grad(), batch_statistics(self.teacher):
            weak = self.teacher(unlabeled.weak)
        with untracked_batch_norm(self.model):
            strong = self.model(unlabeled.strong)
        return labeled, weak, strong
