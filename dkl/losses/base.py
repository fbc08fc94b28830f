"""The contract between losses and tasks, and what the losses of this package share.

A loss is any callable with an attribute ``weighting``. It is called with two logits ``[B, C]`` and returns the mean
over the batch, a scalar. ``weighting`` says which keyword argument it also needs:

    "none", "sample"   none: loss(natural_logits, adversarial_logits)
    "class"            weights=prior[labels], float ``[B, C]``: rows of the class prior (see ``ClassPrior``)
    "label"            labels=labels, int64 ``[B]``; ``ClassPrior`` and the modules call labels ``target``

In distillation the teacher's logits come first, the student's second. A complete loss of your own is

    class LogitMSE:
        weighting = "none"

        def __call__(self, natural_logits, adversarial_logits):
            return (natural_logits - adversarial_logits).square().mean()

in any importable file, chosen by ``loss._target_``. It serves pixels too: those that count become rows. A loss with
``rows`` (see ``RowLoss``) gets ``[B, C, H, W]``, and nothing is copied. A loss that divides by a sum over the batch
may also have ``normalizer`` (see ``BatchNormalized``), so that several devices divide by the sum over all of them.
"""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor

from dkl.losses.prior import ClassPrior
from dkl.validation import hints, problem

Weighting = Literal["class", "sample", "label", "none"]


class PairLoss(Protocol):
    """A loss on two logits ``[B, C]``; see the module's docstring."""

    @property
    def weighting(self) -> Weighting:
        """Which keyword argument the loss needs: class weights ``[B, C]``, labels ``[B]`` or none."""
        ...

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, /, *args: Any, **kwargs: Any) -> Tensor:
        """The mean over the batch, a scalar."""
        ...


@runtime_checkable
class BatchNormalized(Protocol):
    """A loss that divides by a sum over the batch, and takes that sum as the keyword ``normalizer`` too."""

    def normalizer(self, natural_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """The sum over these samples, a scalar without gradient."""
        ...


@runtime_checkable
class RowLoss(Protocol):
    """A loss that also returns the value of every row, for logits ``[B, C, ...]`` with further dimensions."""

    def rows(self, natural_logits: Tensor, adversarial_logits: Tensor, /, **kwargs: Any) -> Tensor:
        """The loss per row, ``[B, ...]``; ``weights``, if wanted, have the logits' shape."""
        ...


def wanted_arguments(loss: PairLoss, labels: Tensor, prior: ClassPrior | None = None) -> dict[str, Tensor]:
    """The keyword arguments that ``loss`` wants for samples of ``labels[B]``; ``prior`` gives class-wise weights."""
    if loss.weighting == "label":
        return {"labels": labels}
    if loss.weighting == "class" and prior is not None:
        return {"weights": prior[labels]}
    return {}


def check_pair_loss(loss: object) -> PairLoss:
    """Return ``loss`` if it keeps the contract. Raises TypeError that names what is missing."""
    name = getattr(loss, "__name__", type(loss).__name__)
    if not callable(loss):
        raise TypeError(f"{name} is not callable: give it __call__(natural_logits, adversarial_logits)")
    weighting, known = getattr(loss, "weighting", None), get_args(Weighting)
    if weighting not in known:
        what = "has no attribute weighting" if weighting is None else f"has weighting={weighting!r}"
        raise TypeError(f"{name} {what}, which must be one of {', '.join(known)}: set weighting = 'none' on the class")
    nothing = torch.empty(0)
    wanted = {key: nothing for key, of in (("weights", "class"), ("labels", "label")) if weighting == of}
    try:
        inspect.signature(loss).bind(nothing, nothing, **wanted)
    except TypeError as error:
        call = ", ".join(["natural_logits", "adversarial_logits", *(f"{key}=..." for key in wanted)])
        raise TypeError(f"{name} has weighting={weighting!r} and must take ({call}): {error}") from None
    return cast(PairLoss, loss)


@dataclass(frozen=True, kw_only=True)
class BaseLoss:
    """Settings of a loss, checked when it is made.

    Raises ValueError unless every number is in the range of its field and ``weighting`` one of the class's
    ``weightings``.
    """

    weightings: ClassVar[tuple[Weighting, ...]] = ("class", "sample")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted = problem(hints(type(self))[field.name], value)
            if field.name == "weighting" and value not in self.weightings:
                wanted = " or ".join(self.weightings)
            if wanted:
                raise ValueError(f"{type(self).__name__}: {field.name}={value!r}, must be {wanted}")
