"""Knowledge distillation: a trained teacher's predictions beside the labels.

    loss = ce_weight · CE(student logits, y) + min(e/w, 1) · loss(teacher logits, student logits, third)

e is the epoch, counted from 1, w ``warmup_epochs``. ``loss`` is any pair loss, teacher first: IKL and GKL as the
official distillers have them, KD (0.1 · CE beside KD at weight 0.9), DKD, DIST. Third are rows of a class prior, the
labels, or nothing, as the loss weights. The prior is that of the teacher's predictions, softened by T2, over the epoch
before (trainer.py of the official code, v1 and v2).

The strong recipe of Table 15 mixes images, which teacher and student see alike, and CE is then the binary one.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dkl.console import say
from dkl.data import Batch
from dkl.distributed import sum_over_ranks
from dkl.errors import UserError
from dkl.losses import ClassPrior, PairLoss
from dkl.models import fingerprint
from dkl.tasks.accuracy import correct
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.tasks.mixing import ImageMixing, label_loss, likeliest

TELLING = 10  # test images a class, below which a teacher's accuracy cannot be told from chance


def _channels_last(model: nn.Module) -> bool:
    """Whether ``model`` keeps its convolutions so; those of 1×1 do not show it."""
    return any(parameter.ndim == 4 and not parameter.is_contiguous() for parameter in model.parameters())


class Distillation(Task):
    """Distillation of ``teacher`` into ``model`` with ``loss``.

    ``ce_weight`` weights the labels' cross-entropy, ``warmup_epochs`` w ramps ``loss`` (0: none). ``prior_temperature``
    is the official T2 where the loss weights by class, ``prior_momentum`` blends the prior of the last epoch with the
    one before. All views of an image count alike. With ``bce`` the labels' cross-entropy is the binary one.

    ``mixup`` and ``cutmix`` are the α by which images are mixed, for losses without a prior; DKD then takes the
    likeliest label, as VanillaKD does. ``seed`` fixes what is drawn. ``cache_teacher`` asks the teacher once an image
    before training, in the weights' precision, and keeps the logits, C floats each on the student's device: for sets
    that every epoch shows alike.

    The teacher takes device, dtype and memory format of ``model``. It stays frozen and in eval mode, is neither trained
    nor averaged, and its weights are not saved, but the task's state holds their fingerprint.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        loss: PairLoss | None,
        *,
        num_classes: int,
        ce_weight: float = 1.0,
        warmup_epochs: int = 20,
        prior_temperature: float = 4.0,
        prior_momentum: float = 1.0,
        bce: bool = False,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        cache_teacher: bool = False,
        seed: int = 0,
    ) -> None:
        if not loss:
            raise UserError("distillation needs a loss between teacher and student: choose loss=ikl_kd, or another")
        if not 0 <= ce_weight < math.inf or warmup_epochs < 0:
            raise UserError(f"task.ce_weight={ce_weight}, task.warmup_epochs={warmup_epochs}: neither may be below 0")
        if not 0 < prior_temperature < math.inf:
            raise UserError(f"task.prior_temperature must be above 0, not {prior_temperature}")
        self.mixing = ImageMixing(mixup=mixup, cutmix=cutmix, num_classes=num_classes, seed=seed)
        if self.mixing and loss.weighting == "class":
            raise UserError(
                f"task.mixup={mixup} and task.cutmix={cutmix} mix classes, but {type(loss).__name__} weights by each "
                "image's own: choose loss.weighting=sample, or another loss, or set both to 0"
            )
        parameter = next(model.parameters())
        self.bce, self.cache_teacher, self.cached = bce, cache_teacher, torch.empty(0)
        self.model, self.loss, self.num_classes = model, loss, num_classes
        self.ce_weight, self.warmup_epochs, self.prior_temperature = ce_weight, warmup_epochs, prior_temperature
        self.fingerprint = fingerprint(teacher)
        self.teacher = teacher.to(parameter.device, parameter.dtype).eval().requires_grad_(False)
        if _channels_last(model):
            self.teacher.to(memory_format=torch.channels_last)
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains: the student."""
        return self.model.named_parameters()

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Say how good the teacher is on ``testing``, and keep what it says of ``training`` where that is asked for.
        Raises UserError where it is no better than chance."""
        right = correct(self.teacher, testing)
        counts = torch.stack([right.sum(), torch.tensor(len(right))])
        sum_over_ranks([counts])
        count, accuracy = int(counts[1]), (counts[0] / counts[1]).item()
        say(f"teacher {type(self.teacher).__name__} {self.fingerprint[:8]}: {accuracy:.2%} on {count} test images")
        if count >= TELLING * self.num_classes and accuracy < 2 / self.num_classes:
            raise UserError(
                f"the teacher is right on {accuracy:.2%} of {count} test images, and chance on "
                f"{1 / self.num_classes:.2%}: give weights trained on these classes, in this order, and normalised so"
            )
        if self.cache_teacher:
            self.cached = self._ask(training)

    @torch.no_grad()
    def _ask(self, training: Iterable[Batch]) -> Tensor:
        """The teacher's logits [N, C] of all N images, by their indices; each process asks it about its share."""
        shares = [(batch.indices, self.teacher(batch.images)) for batch in training]
        indices, logits = (torch.cat(values) for values in zip(*shares, strict=True))
        count = torch.tensor(len(indices))
        sum_over_ranks([count])
        table = logits.new_zeros(int(count), logits.shape[-1])
        table[indices] = logits
        sum_over_ranks([table])
        return table

    def _third(self, labels: Tensor) -> Tensor | None:
        """What the loss takes beside the logits."""
        if self.loss.weighting == "label":
            return labels
        return self.prior[labels] if self.loss.weighting == "class" else None

    def _accumulate(self, teacher: Tensor, labels: Tensor) -> None:
        """Add the teacher's softened predictions to the class prior, where the loss uses it."""
        if self.loss.weighting == "class":
            softened = teacher.to(self.prior.table.dtype) / self.prior_temperature
            self.prior.accumulate(softened.softmax(-1), labels)

    @torch.no_grad()
    def _teach(self, images: Tensor, batch: Batch) -> Tensor:
        """The teacher's logits of ``images``, those of ``batch`` as the student sees them."""
        if not self.cache_teacher:
            return self.teacher(images)
        if batch.indices is None or batch.views > 1:
            raise UserError("task.cache_teacher=true needs one view of images of one set: set task.cache_teacher=false")
        return self.cached[batch.indices]

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch."""
        images, labels = self.mixing(batch, progress)
        student, teacher = self.model(images), self._teach(images, batch)
        warm = min(progress.epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        divergence = self.loss(teacher, student, self._third(likeliest(labels)))
        self._accumulate(teacher, batch.labels)
        loss = self.ce_weight * label_loss(student, labels, binary=self.bce) + warm * divergence
        yield Output(loss, {"natural_correct": count_correct(student, likeliest(labels))})

    def end_epoch(self) -> None:
        """Put this epoch's class means, over all processes, into use."""
        sum_over_ranks([self.prior.sums])
        self.prior.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The class prior, and which teacher it is."""
        return {"teacher": self.fingerprint, "prior": self.prior.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back the class prior. Raises UserError where the run began with another teacher."""
        if state["teacher"] != self.fingerprint:
            raise UserError(
                f"this run began with the teacher {state['teacher'][:8]}, and task.teacher now names "
                f"{self.fingerprint[:8]}: give the same weights, or move the run's folder away to start over"
            )
        self.prior.load_state_dict(state["prior"])
