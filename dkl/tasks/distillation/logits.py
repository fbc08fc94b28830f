"""Knowledge distillation: a trained teacher's predictions in addition to the labels.

    loss = ce_weight · CE(student logits, y) + min(e/w, 1) · loss(teacher logits, student logits)

e is the epoch, counted from 1, and w ``warmup_epochs``. ``loss`` is any pair loss, teacher first: IKL and GKL as in the
official distillers, KD (weight 0.9, with 0.1 · CE), DKD, DIST. It gets rows of the class prior, the labels or the
distances between classes if it asks for them. The prior holds the teacher's predictions, softened by T2, of the epoch
before (trainer.py of the official code, v1 and v2).

The strong recipe of Table 15 mixes images. Teacher and student see the same mixed images, and CE is the binary one.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dkl.console import say
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses.base import ClassComparing, ClassPrior, PairLoss, Scheduled, check_pair_loss, wanted_arguments
from dkl.losses.transport import classifier_distances, feature_distances
from dkl.models import fingerprint
from dkl.models.features import classifier_of, forward_with_features
from dkl.runtime.distributed import mean_over_ranks, sum_over_ranks
from dkl.tasks.base import Output, Progress, Task, correct, count_correct
from dkl.tasks.classification import ImageMixing, label_loss, likeliest
from dkl.validation import CLASSES, EPOCHS, MIXING, PRIOR_MOMENTUM, SEED, TEMPERATURE, WEIGHT, check_arguments

MIN_IMAGES_PER_CLASS = 10  # With fewer test images per class, a teacher's accuracy cannot be distinguished from chance.


def frozen_teacher(teacher: nn.Module, model: nn.Module) -> nn.Module:
    """``teacher`` in eval mode and frozen, with the device, dtype and memory format of ``model``."""
    parameter = next(model.parameters())
    teacher = teacher.to(parameter.device, parameter.dtype).eval().requires_grad_(False)
    # 1×1 convolutions are contiguous in both memory formats.
    if any(weight.ndim == 4 and not weight.is_contiguous() for weight in model.parameters()):
        teacher.to(memory_format=torch.channels_last)
    return teacher


def teacher_accuracy(teacher: nn.Module, name: str, testing: Iterable[Batch], num_classes: int) -> float:
    """Print and return the accuracy of ``teacher``, whose fingerprint begins with ``name``, on ``testing``.

    Raises UserError if the teacher is no better than chance.
    """
    accuracy, count = mean_over_ranks(correct(teacher, testing))
    say(f"teacher {type(teacher).__name__} {name}: {accuracy:.2%} on {count} test images")
    chance = 1 / num_classes
    # At chance, only one accuracy in a thousand is three standard deviations above it.
    expected = chance + 3 * math.sqrt(chance * (1 - chance) / count)
    if count >= MIN_IMAGES_PER_CLASS * num_classes and accuracy < expected:
        raise UserError(
            f"the teacher's accuracy is {accuracy:.2%} on {count} test images, and chance is {chance:.2%}: give "
            "weights trained on these classes, in this order, with this normalization"
        )
    return accuracy


def check_same_teacher(trained: str, now: str, key: str = "task.teacher") -> None:
    """Raise UserError if a run began with the fingerprint ``trained`` of the teacher of ``key``, and has another."""
    if trained != now:
        raise UserError(
            f"this run began with the teacher {trained[:8]}, but {key} is now {now[:8]}: give the same weights, or "
            "move the run's folder away to start over"
        )


class Distillation(Task):
    """Distills ``teacher`` into ``model`` with ``loss``.

    ``ce_weight`` weights the labels' cross-entropy; ``warmup_epochs`` w ramps ``loss`` up (0: no ramp).
    ``prior_temperature`` (the official T2) softens the predictions that enter the class prior, if the loss is weighted
    by class; ``prior_momentum`` blends the new prior with the old one. All views of an image have the same weight. With
    ``bce`` the labels' cross-entropy is the binary one.

    ``mixup`` and ``cutmix`` are the α of the two ways to mix images, for losses without a prior; DKD then takes the
    label with the largest share, as VanillaKD does. ``seed`` fixes the random choices. ``cache_teacher`` computes the
    teacher's logits once per image before training, in the weights' precision, and keeps them on the student's device
    (C floats per image); it needs data that is the same in every epoch.

    The teacher takes the device, dtype and memory format of ``model``. It stays frozen and in eval mode, is neither
    trained nor averaged, and its weights are not saved, but the task's state holds their fingerprint.
    """

    prior: ClassPrior

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        loss: PairLoss | None,
        *,
        num_classes: Annotated[int, CLASSES],
        ce_weight: Annotated[float, WEIGHT] = 1.0,
        warmup_epochs: Annotated[int, EPOCHS] = 20,
        prior_temperature: Annotated[float, TEMPERATURE] = 4.0,
        prior_momentum: Annotated[float, PRIOR_MOMENTUM] = 1.0,
        bce: bool = False,
        mixup: Annotated[float, MIXING] = 0.0,
        cutmix: Annotated[float, MIXING] = 0.0,
        cache_teacher: bool = False,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        if not loss:
            raise UserError("distillation needs a loss between teacher and student: choose loss=ikl_kd, or another")
        loss = check_pair_loss(loss)
        self.mixing = ImageMixing(mixup=mixup, cutmix=cutmix, num_classes=num_classes, seed=seed)
        if self.mixing and loss.weighting == "class":
            raise UserError(
                f"task.mixup={mixup} and task.cutmix={cutmix} mix classes, but {type(loss).__name__} is weighted by "
                "the class of each image: choose loss.weighting=sample, or another loss, or set both to 0"
            )
        parameter = next(model.parameters())
        self.bce, self.cache_teacher, self.cached = bce, cache_teacher, torch.empty(0)
        self.model, self.loss, self.num_classes = model, loss, num_classes
        self.ce_weight, self.warmup_epochs, self.prior_temperature = ce_weight, warmup_epochs, prior_temperature
        self.fingerprint = fingerprint(teacher)  # of the weights as loaded, before they change dtype
        self.teacher = frozen_teacher(teacher, model)
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)
        self.class_distances: Tensor | None = None
        if isinstance(loss, ClassComparing) and loss.distances == "classifier":
            self.class_distances = classifier_distances(classifier_of(self.teacher).weight)

    def warmup(self, progress: Progress) -> float:
        """The factor in [0, 1] of ``loss`` in this epoch."""
        return min(progress.epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Print the teacher's accuracy on ``testing``, and cache its logits of ``training`` if ``cache_teacher``.

        From ``training`` also come the distances between classes, if the loss asks for those of features. Raises
        UserError if the teacher is no better than chance.
        """
        teacher_accuracy(self.teacher, self.fingerprint[:8], testing, self.num_classes)
        if self.cache_teacher:
            self.cached = self._of_all(training, lambda batch: self.teacher(batch.images))
        if isinstance(self.loss, ClassComparing) and self.loss.distances == "features":
            self.class_distances = feature_distances(self._class_features(training))

    def _class_features(self, training: Iterable[Batch]) -> Tensor:
        """The inputs ``[C, n, D]`` of the teacher's classifier for the first n images of each class.

        A class with fewer than two images has zeros, and n is the smallest number of images of the others.
        """

        def labeled_features(batch: Batch) -> Tensor:
            _, features = forward_with_features(self.teacher, batch.images)
            return torch.cat((batch.labels.unsqueeze(1), features.pooled), 1)

        labels, features = self._of_all(training, labeled_features).tensor_split([1], 1)
        of_class = [features[labels.squeeze(1) == label] for label in range(self.num_classes)]
        count = min((len(rows) for rows in of_class if len(rows) > 1), default=2)
        if few := sum(len(rows) < 2 for rows in of_class):
            say(
                f"warning: {few} of {self.num_classes} classes have fewer than 2 training images, so their features "
                "cannot be compared and get distance 1 to all others: set loss.distances=classifier"
            )
        unknown = features.new_zeros(count, features.shape[1])
        return torch.stack([rows[:count] if len(rows) > 1 else unknown for rows in of_class])

    @torch.no_grad()
    def _of_all(self, training: Iterable[Batch], values: Callable[[Batch], Tensor]) -> Tensor:
        """``values[B, D]`` of all N images, by index, ``[N, D]``; each process computes those of its share."""
        shares = [(batch.indices, values(batch)) for batch in training]
        indices, rows = (torch.cat(parts) for parts in zip(*shares, strict=True))
        # Every process fills its rows of a table of zeros; the sum over processes is the whole table.
        count = torch.tensor(len(indices))
        sum_over_ranks([count])
        table = rows.new_zeros(int(count), rows.shape[-1])
        table[indices] = rows
        sum_over_ranks([table])
        return table

    @torch.no_grad()
    def _teacher_logits(self, images: Tensor, batch: Batch) -> Tensor:
        """The teacher's logits of ``images``, which are those of ``batch`` after mixing."""
        if not self.cache_teacher:
            return self.teacher(images)
        if batch.indices is None or batch.views > 1:
            raise UserError(
                "task.cache_teacher=true needs one view per image, of one dataset: set task.cache_teacher=false"
            )
        return self.cached[batch.indices]

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        images, labels = self.mixing(batch, progress)
        student, divergence = self.compare(images, likeliest(labels), batch, progress)
        loss = self.ce_weight * label_loss(student, labels, binary=self.bce) + self.warmup(progress) * divergence
        yield Output(loss, {"natural_correct": count_correct(student, likeliest(labels))})

    def compare(self, images: Tensor, labels: Tensor, batch: Batch, progress: Progress) -> tuple[Tensor, Tensor]:
        """The student's logits of ``images``, those of ``batch`` after mixing, and the loss between both networks."""
        student, teacher = self.model(images), self._teacher_logits(images, batch)
        loss = self.loss.at(progress.epoch / progress.epochs) if isinstance(self.loss, Scheduled) else self.loss
        divergence = loss(teacher, student, **wanted_arguments(loss, labels, self.prior, self.class_distances))
        # After the loss: the prior of this epoch enters the losses of the next one.
        if self.loss.weighting == "class":
            self.prior.observe(teacher, batch.labels, self.prior_temperature)
        return student, divergence

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"teacher": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned. Raises UserError if the run began with another teacher."""
        check_same_teacher(state["teacher"], self.fingerprint)
        super().load_state_dict(state)
