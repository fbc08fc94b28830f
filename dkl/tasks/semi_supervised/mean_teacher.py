"""Mean-Teacher (Tarvainen & Valpola 2017): the averaged network's prediction on a weak view is the target.

The teacher is the run's average of the weights, which is also evaluated. As in USB it predicts in train mode (with
dropped paths), and BatchNorm's running statistics follow the labeled images only.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from dkl.attacks import batch_statistics, untracked_batch_norm
from dkl.data import Unlabeled
from dkl.errors import UserError
from dkl.tasks.semi_supervised.consistency import ConsistencyTraining


class MeanTeacher(ConsistencyTraining):
    """The average of the weights per step makes the targets; it needs ``averaging.per=step``."""

    needs_average: ClassVar[bool] = True
    teacher: nn.Module | None = None

    def use_average(self, average: nn.Module) -> None:
        """Take the teacher."""
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
