"""The contract between losses and tasks, the class prior, and what the losses of this package share.

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
may also have ``normalizer`` (see ``BatchNormalized``), so that several devices divide by the sum over all of them. A
loss that compares classes asks for their distances by ``distances`` (see ``ClassComparing``), and one that changes
during training has ``at`` (see ``Scheduled``).
"""

import dataclasses
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast, get_args, get_origin, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import embedding

from dkl.validation import WEIGHT, hints, problem

Weighting = Literal["class", "sample", "label", "none"]

Distances = Literal["classifier", "features"]

STANDARD_EPS = 1e-7
"""Added to standard deviations by the official logit standardization."""


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
        """The sum over these samples, without gradient: a scalar, or a vector that ``WeightedSum`` can use."""
        ...


@runtime_checkable
class RowLoss(Protocol):
    """A loss that also returns the value of every row, for logits ``[B, C, ...]`` with further dimensions."""

    def rows(self, natural_logits: Tensor, adversarial_logits: Tensor, /, **kwargs: Any) -> Tensor:
        """The loss per row, ``[B, ...]``; ``weights``, if wanted, have the logits' shape."""
        ...


@runtime_checkable
class ClassComparing(Protocol):
    """A loss that takes the distances between classes as the keyword ``class_distances`` too, float ``[C, C]``."""

    @property
    def distances(self) -> Distances:
        """What tells classes apart: the rows of the teacher's classifier, or its features of the training images."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """A loss whose settings change during training."""

    def at(self, share: float) -> PairLoss:
        """The loss of the epoch that ends when this ``share`` of training, in (0, 1], is done."""
        ...


class ClassPrior(nn.Module):
    """Mean softmax prediction per true class over the last epoch; ``prior[target]`` gives weights ``[B, C]``.

    It is the global information of IKL and GKL.
    Rows start uniform at 1/C and change only at ``end_epoch``. A class without samples in the epoch keeps its row; in
    the official code it becomes NaN, and every sample with it. ``prior_momentum`` m blends m·new + (1 − m)·old.

    Source: ``train_dkl_cifar100.py`` of the official code, which loses the prior on resume; here the state_dict has it.

    Both tensors are at least float32 and stay so if the module is cast to fewer bits. They are in the state_dict, but
    are no buffers: DistributedDataParallel would overwrite them with those of process 0 in every step.
    """

    table: Tensor
    sums: Tensor

    def __init__(self, num_classes: int, prior_momentum: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} must be at least 1")
        if not 0 < prior_momentum <= 1:
            raise ValueError(f"prior_momentum={prior_momentum} must be in (0, 1]")
        self.prior_momentum = prior_momentum
        dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        self.table = torch.full((num_classes, num_classes), 1 / num_classes, dtype=dtype)
        self.sums = torch.zeros(num_classes, num_classes, dtype=dtype)

    @contextmanager
    def _as_buffers(self) -> Iterator[None]:
        """Register the tensors inside, so that torch saves and loads them by their names."""
        self._buffers |= {"table": self.table, "sums": self.sums}
        try:
            yield
        finally:
            for name in ("table", "sums"):
                setattr(self, name, self._buffers.pop(name))

    def _save_to_state_dict(self, *args: Any) -> None:
        with self._as_buffers():
            super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        with self._as_buffers():
            super()._load_from_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ClassPrior":
        """What ``to()`` and ``half()`` call: move the tensors, and cast them unless to fewer bits."""
        for name in ("table", "sums"):
            before = getattr(self, name)
            after = fn(before)
            narrower = torch.promote_types(after.dtype, before.dtype) != after.dtype
            setattr(self, name, before.to(after.device) if narrower else after)
        return super()._apply(fn, recurse)

    def __getitem__(self, target: Tensor) -> Tensor:
        """Weights ``[B, ..., C]`` for labels ``target[B, ...]``, int64 or int32; of a single label ``[C]``.

        Labels below 0 or from C on raise IndexError; on a GPU they are a failed assertion of the device.
        """
        return embedding(torch.as_tensor(target, device=self.table.device), self.table)

    @torch.no_grad()
    def observe(
        self, logits: Tensor, target: Tensor, prior_temperature: float, ignore_index: int | None = None
    ) -> None:
        """Add the softmax of ``logits[B, C, ...]`` / ``prior_temperature`` to the sums of their classes.

        These are ``target[B, ...]``; those that are ``ignore_index`` do not count.
        """
        rows, labels = logits.detach().movedim(1, -1).flatten(0, -2), target.flatten()
        predictions = (rows.to(self.table.dtype) / prior_temperature).softmax(-1)
        if ignore_index is not None:
            counted = labels != ignore_index
            predictions, labels = predictions.where(counted[:, None], 0), labels.where(counted, 0)
        if logits.ndim > 2:
            # Per batch first: a dataset has 10⁹ pixels, and float32 cannot add one prediction to sums of that size.
            predictions = torch.zeros_like(self.sums).index_add_(0, labels, predictions)
            labels = torch.arange(len(self.sums), device=labels.device)
        self.accumulate(predictions, labels)

    @torch.no_grad()
    def accumulate(self, probabilities: Tensor, target: Tensor) -> None:
        """Add the predictions ``probabilities[B, C]`` to this epoch's sums of their classes ``target[B]``."""
        self.sums.index_add_(0, target, probabilities.detach().to(self.sums.dtype))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Replace the table by this epoch's means and reset the sums to zero.

        If torch.distributed is initialized the means are those of all processes, which must all call this.
        """
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sums)
        # Predictions sum to 1, so the sum of a row counts the samples of its class.
        count = self.sums.sum(dim=1, keepdim=True)
        means = self.sums / count.clamp(min=torch.finfo(self.sums.dtype).tiny)
        blended = self.prior_momentum * means + (1 - self.prior_momentum) * self.table
        self.table.copy_(torch.where(count > 0, blended, self.table))
        self.sums.zero_()

    def extra_repr(self) -> str:
        return f"num_classes={self.table.shape[0]}, prior_momentum={self.prior_momentum}"


def wanted_arguments(
    loss: PairLoss, labels: Tensor, prior: ClassPrior | None = None, class_distances: Tensor | None = None
) -> dict[str, Tensor]:
    """The keyword arguments that ``loss`` wants for samples of ``labels[B]``; ``prior`` gives class-wise weights."""
    wanted = {}
    if loss.weighting == "label":
        wanted["labels"] = labels
    if loss.weighting == "class" and prior is not None:
        wanted["weights"] = prior[labels]
    if isinstance(loss, ClassComparing) and class_distances is not None:
        wanted["class_distances"] = class_distances
    return wanted


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
    if isinstance(loss, ClassComparing):
        wanted["class_distances"] = nothing
    try:
        inspect.signature(loss).bind(nothing, nothing, **wanted)
    except TypeError as error:
        call = ", ".join(["natural_logits", "adversarial_logits", *(f"{key}=..." for key in wanted)])
        raise TypeError(f"{name} has weighting={weighting!r} and must take ({call}): {error}") from None
    return cast(PairLoss, loss)


_observed: ContextVar[dict[str, list[Tensor]] | None] = ContextVar("_observed", default=None)


@contextmanager
def observed_terms() -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the terms of each ``WeightedSum`` that is called inside add to it, by name, without gradients."""
    terms: dict[str, list[Tensor]] = defaultdict(list)
    token = _observed.set(terms)
    try:
        yield terms
    finally:
        _observed.reset(token)


class WeightedSum:
    """Several pair losses at once: Σ weight · loss over ``terms``, which are ``{"weight": 1.0, "loss": ...}`` by name.

    It keeps the contract, and asks for what its terms ask for: it has ``rows`` if all of them have, and ``normalizer``,
    ``distances`` or ``at`` if one has. What each term adds to the loss is logged as ``loss/NAME``; of ``rows`` it is
    the mean. Raises ValueError if there is no term, if a weight is no number, or if two terms do not go together.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        if not terms:
            raise ValueError("WeightedSum has no terms: give at least one terms.NAME.loss, with terms.NAME.weight")
        for name, term in terms.items():
            if not isinstance(term, Mapping) or not {"loss"} <= set(term) <= {"loss", "weight"}:
                raise ValueError(f"WeightedSum: terms.{name}={term}, must hold a loss, its weight and nothing else")
            if isinstance(term["loss"], WeightedSum):
                raise ValueError(f"WeightedSum: terms.{name} is a WeightedSum: give its terms here instead")
            if wanted := problem(Annotated[float, WEIGHT], term.get("weight", 1.0)):
                raise ValueError(f"WeightedSum: terms.{name}.weight={term['weight']!r}, must be {wanted}")
        self.terms = {name: (term.get("weight", 1.0), check_pair_loss(term["loss"])) for name, term in terms.items()}
        losses = [loss for _, loss in self.terms.values()]
        weightings = [loss.weighting for loss in losses if loss.weighting in ("class", "label")]
        self.weighting = cast(Weighting, self._common("weighting", weightings) or "none")
        # Tasks look for these attributes: only a sum that can use them has them.
        if distances := self._common("distances", [one.distances for one in losses if isinstance(one, ClassComparing)]):
            self.distances = distances
        if all(isinstance(loss, RowLoss) for loss in losses):
            self.rows = partial(self._sum, "rows")
        if any(isinstance(loss, BatchNormalized) for loss in losses):
            self.normalizer = self._normalizers
        if any(isinstance(loss, Scheduled) for loss in losses):
            self.at = self._at

    @staticmethod
    def _common(key: str, values: Sequence[str]) -> str | None:
        """The one of ``values``, or None if there is none."""
        if len(set(values)) > 1:
            both = " and ".join(f"{key}={value}" for value in sorted(set(values)))
            raise ValueError(f"WeightedSum: its terms have {both}: choose losses with the same {key}")
        return values[0] if values else None

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, /, **arguments: Tensor) -> Tensor:
        return self._sum("__call__", natural_logits, adversarial_logits, **arguments)

    def _at(self, share: float) -> "WeightedSum":
        """The loss of the epoch that ends when this ``share`` of training is done."""
        terms = {}
        for name, (weight, loss) in self.terms.items():
            terms[name] = {"weight": weight, "loss": loss.at(share) if isinstance(loss, Scheduled) else loss}
        return WeightedSum(terms)

    def _normalizers(self, natural_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """One per term that has a normalizer."""
        losses = [loss for _, loss in self.terms.values() if isinstance(loss, BatchNormalized)]
        of_class = {"class": weights}
        return torch.stack([loss.normalizer(natural_logits, weights=of_class.get(loss.weighting)) for loss in losses])

    def _sum(self, method: str, natural: Tensor, adversarial: Tensor, /, **arguments: Tensor) -> Tensor:
        given = arguments.pop("normalizer", None)
        values, normalizers = {}, iter(() if given is None else given)
        for name, (weight, loss) in self.terms.items():
            takes = {"weights": loss.weighting == "class", "labels": loss.weighting == "label"}
            takes["class_distances"] = isinstance(loss, ClassComparing)
            own = {key: value for key, value in arguments.items() if takes[key]}
            if isinstance(loss, BatchNormalized) and (normalizer := next(normalizers, None)) is not None:
                own["normalizer"] = normalizer
            values[name] = weight * getattr(loss, method)(natural, adversarial, **own)
        if (observed := _observed.get()) is not None:
            for name, value in values.items():
                observed[f"loss/{name}"].append(value.detach().mean())
        return torch.stack([*values.values()]).sum(0)


def standardized(logits: Tensor) -> Tensor:
    """``logits[B, C, ...]`` minus their mean over classes, over 1e-7 plus their standard deviation (with C − 1).

    The gradient passes through both. Source: logit standardization, Sun et al. 2024 (arXiv 2403.01427) and its code.
    Raises ValueError if there is only one class.
    """
    if logits.ndim < 2:
        return logits  # the loss says which shape it needs
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits are standardized over at least 2 classes, got shape {tuple(logits.shape)}: set standardize=False"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    centered = logits - logits.mean(1, keepdim=True)
    # The gradient of this norm is 0, not NaN, for a row of equal logits.
    deviation = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / math.sqrt(logits.shape[1] - 1)
    return centered / (STANDARD_EPS + deviation)


def _standardizing(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``method`` of a loss, whose positional arguments are logits, with those standardized if ``standardize``."""

    @wraps(method)
    def of_standardized(self: "BaseLoss", *logits: Tensor, **arguments: Any) -> Tensor:
        if self.standardize:
            logits = tuple(map(standardized, logits))
            arguments = {key: standardized(x) if key.endswith("_logits") else x for key, x in arguments.items()}
        return method(self, *logits, **arguments)

    return of_standardized


@dataclass(frozen=True, kw_only=True)
class BaseLoss:
    """Settings of a loss, checked when it is made.

    With ``standardize`` everything is computed from standardized logits (see ``standardized``), so that only their
    order and relative sizes are compared: KD with it is KD + LS.

    Raises ValueError unless every number is in the range of its field, every text one of its field's, and
    ``weighting`` one of the class's ``weightings``. ``_ranged`` has the annotations with their ranges; ``help()`` and
    signatures show plain types.
    """

    weightings: ClassVar[tuple[Weighting, ...]] = ("class", "sample")
    _ranged: ClassVar[dict[str, Any]] = {}

    standardize: bool = False

    def __init_subclass__(cls) -> None:
        cls._ranged = cls._ranged | {key: of for key, of in cls.__annotations__.items() if get_origin(of) is Annotated}
        cls.__annotations__ |= {key: get_args(of)[0] for key, of in cls._ranged.items() if key in cls.__annotations__}
        # Once for all losses: what takes logits in a subclass takes standardized ones if that is chosen.
        for name in vars(cls).keys() & {"__call__", "rows", "normalizer"}:
            setattr(cls, name, _standardizing(vars(cls)[name]))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, annotation = getattr(self, field.name), hints(type(self))[field.name]
            texts = get_args(annotation) if get_origin(annotation) is Literal else None
            if field.name == "weighting":
                texts = self.weightings
            wanted = problem(annotation, value) if texts is None else value not in texts and " or ".join(texts)
            if wanted:
                raise ValueError(f"{type(self).__name__}: {field.name}={value!r}, must be {wanted}")
