"""Terms of robust distillation: what is compared, from which epoch on, and how much each sample counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from dkl.errors import UserError, choose_from
from dkl.losses import KL, PairLoss, RowLoss, check_pair_loss
from dkl.tasks.base import Progress
from dkl.validation import EPOCHS, WEIGHT, check_fields

IMAGES = ("adversarial", "mirrored", "natural")
"""Kinds of images, in the order in which the student forwards them."""

KINDS = ("natural", "adversarial", "difference")
"""Kinds of logits that a term compares."""

NETWORKS = ("student", "teacher", "natural_teacher")

LABELS = "labels"

TARGETS = (LABELS, *(f"{network}.{kind}" for network in NETWORKS for kind in KINDS))
"""Targets of a term."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the loss: ``weight`` · ``loss`` from the logits ``target`` to the student's logits ``student``.

    ``target`` is one of ``TARGETS``, ``student`` one of ``KINDS``. ``loss`` None is the task's, or the cross-entropy if
    the target is the labels. ``sample_weight`` is one of ``SAMPLE_WEIGHTS``, None for 1. The term is active from epoch
    ``from_epoch`` on, counted from 1, and before ``before_epoch``. ``ramp`` multiplies it by e/E.
    ``mean_over_classes`` divides it by the number of classes, as ``nn.KLDivLoss()`` in the official codes does.
    """

    target: str
    student: str
    loss: PairLoss | None = None
    weight: Annotated[float, WEIGHT] = 1.0
    sample_weight: str | None = None
    from_epoch: Annotated[int, EPOCHS] = 0
    before_epoch: Annotated[int | None, EPOCHS] = None
    ramp: bool = False
    mean_over_classes: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "task.terms")
        for key, value, known in (
            ("target", self.target, TARGETS),
            ("student", self.student, KINDS),
            ("sample_weight", self.sample_weight, (None, *SAMPLE_WEIGHTS)),
        ):
            if value not in known:
                raise UserError(
                    f"task.terms: {key}={value}: {choose_from(str(value), [one or 'null' for one in known])}"
                )
        if (self.target.endswith(".difference")) != (self.student == "difference"):
            raise UserError(
                f"task.terms: target={self.target} and student={self.student}: a difference is compared with a "
                "difference; set both, or neither"
            )

    def active(self, epoch: int) -> bool:
        """Whether the term is part of the loss in ``epoch``."""
        return bool(self.weight) and self.from_epoch <= epoch < (self.before_epoch or epoch + 1)

    def factor(self, progress: Progress, num_classes: int) -> float:
        """What multiplies the mean over samples."""
        ramp = progress.epoch / progress.epochs if self.ramp else 1.0
        return self.weight * ramp / (num_classes if self.mean_over_classes else 1)

    @property
    def logits(self) -> set[tuple[str, str]]:
        """The logits that the term needs, as network and images."""
        places = {("student", self.student)}
        if self.target != LABELS:
            network, _, kind = self.target.partition(".")
            places.add((network, kind))
        if self.sample_weight:
            places.add(("teacher", "adversarial"))
        pairs = {(network, images) for network, kind in places if kind == "difference" for images in IMAGES[:2]}
        return pairs | {(network, kind) for network, kind in places if kind != "difference"}


class WeightSettings(NamedTuple):
    """Settings of ``SAMPLE_WEIGHTS``; ``entropy_order`` is Rényi's, 1 is Shannon's entropy."""

    trust_power: float
    entropy_scale: float
    entropy_order: float


def _trust(logits: Tensor, labels: Tensor, settings: WeightSettings) -> Tensor:
    """The probability of the label to the power ``trust_power`` (IAD, Zhu et al. 2022)."""
    return logits.softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1) ** settings.trust_power


def _uncertainty(logits: Tensor, labels: Tensor, settings: WeightSettings) -> Tensor:
    """By how much each of Rényi's entropies exceeds the smallest of the batch, times ``entropy_scale``.

    SAAD, Lee et al. 2025.
    """
    log_p, order = logits.log_softmax(-1), settings.entropy_order
    entropies = -(log_p.exp() * log_p).sum(-1) if order == 1 else (order * log_p).logsumexp(-1) / (1 - order)
    return settings.entropy_scale * (entropies - entropies.min())


def _certainty(logits: Tensor, labels: Tensor, settings: WeightSettings) -> Tensor:
    """1 − the uncertainty, scaled to [0, 1] in the batch; 1 if all entropies are equal."""
    above = _uncertainty(logits, labels, settings)
    return 1 - above / above.max().clamp(min=torch.finfo(above.dtype).tiny)


SAMPLE_WEIGHTS: dict[str, Callable[[Tensor, Tensor, WeightSettings], Tensor]] = {
    "trust": _trust,
    "distrust": lambda *arguments: 1 - _trust(*arguments),
    "uncertainty": _uncertainty,
    "certainty": _certainty,
}
"""Constants ``[B]`` from the teacher's adversarial logits ``[B, C]`` and the labels ``[B]``."""


def checked_terms(terms: Mapping[str, Term] | None) -> dict[str, Term]:
    """Raise UserError unless there are terms, each a ``Term``, and one of them is active in every epoch."""
    if not terms:
        raise UserError("task.terms is empty: choose a method, such as task=rslad, or add terms to task.terms")
    for name, term in terms.items():
        if not isinstance(term, Term):
            raise UserError(f"task.terms.{name} is no term: set task.terms.{name}._target_=dkl.tasks.Term")
    changes = {epoch for term in terms.values() for epoch in (term.from_epoch, term.before_epoch) if epoch}
    for epoch in sorted({1, *changes}):
        if not any(term.active(epoch) for term in terms.values()):
            raise UserError(
                f"no term is active in epoch {epoch}: set task.terms.{next(iter(terms))}.weight=1, or other epochs"
            )
    return dict(terms)


def losses_of(terms: Mapping[str, Term], default: PairLoss | None) -> dict[str, PairLoss | None]:
    """The loss of each term, None for the labels' cross-entropy; ``default`` is the task's.

    Raises UserError if one does not fit its term, or if somebody chose a default that no term takes.
    """
    losses = {name: _loss_of(f"task.terms.{name}", term, default) for name, term in terms.items()}

    def is_default(loss: PairLoss | None) -> bool:  # a copy of a loss without == is another object
        return loss == default or (type(loss) is type(default) and not is_dataclass(loss))

    if default not in (None, KL()) and not any(map(is_default, losses.values())):
        raise UserError(
            f"loss: no term takes this {type(default).__name__}, because each has its own: add "
            f"'task.terms.{next(iter(terms))}.loss=${{loss}}', or leave the choice of the loss out"
        )
    return losses


def _loss_of(key: str, term: Term, default: PairLoss | None) -> PairLoss | None:
    if term.target == LABELS:
        if term.loss is not None:
            raise UserError(f"{key}.loss: the labels have the cross-entropy: set it to null, or choose another target")
        return None
    if not (term.loss or default):
        raise UserError(f"{key} has no loss: choose loss=kl_kd, or another")
    loss = check_pair_loss(term.loss or default)
    kind = type(loss).__name__
    if term.student == "difference" and loss.weighting != "none":
        raise UserError(
            f"{key}: {kind} has weighting={loss.weighting}, but a difference of logits is no prediction: set "
            f"{key}.loss._target_=dkl.losses.KL"
        )
    if term.sample_weight and not isinstance(loss, RowLoss):
        raise UserError(
            f"{key}.sample_weight={term.sample_weight} needs the loss of each sample, which {kind} does not give: "
            f"choose a loss with rows, such as KL, IKL, GKL, KD or DKD, or set {key}.sample_weight=null"
        )
    return loss
