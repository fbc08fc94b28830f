r"""KL, DKL, IKL and GKL between a natural (or teacher) and an adversarial (or student) prediction.

The theorem of the paper: the gradients of KL(softmax(m) ‖ softmax(n)) equal those of

    DKL = wmse_weight · gap_mse(m, stop(n), stop(softmax(m))) + ce_weight · soft_cross_entropy(stop(m), n)

at weights (1, 1). IKL lets the weighted MSE reach n as well and takes class-wise mean predictions for weights; GKL
raises those to a power and normalises over the batch.

Names. ``wmse_weight`` is the paper's alpha and the official flag ``--beta``; ``ce_weight`` is the paper's beta and the
official flag ``--alpha``. The paper's tables print alpha/4: 5 there is ``wmse_weight=20``.

Each class is a frozen, stateless dataclass called with ``(natural_logits[B, C], adversarial_logits[B, C], weights)``
and returns the mean over the batch. ``weighting`` says which weights it wants: ``"class"`` rows of a class prior
(``prior[target]``, passed by the caller), ``"sample"`` the softmax of the natural logits (made here), ``"none"`` no
weights at all, ``"label"`` the labels themselves, int64 ``[B]``, in their place (DKD).

In distillation the teacher comes first; ``ce_temperature`` and ``sample_temperature`` serve it, and are 1 elsewhere.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses.wmse import check_pair, gap_mse, gap_mse_and_cross_entropy, soft_cross_entropy, softened

Weighting = Literal["class", "sample", "label", "none"]


class PairLoss(Protocol):
    """What a task or an attack objective needs of a loss on two predictions."""

    @property
    def weighting(self) -> Weighting: ...

    def __call__(
        self, natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor | None = None, /
    ) -> Tensor: ...


def _resolve(
    natural_logits: Tensor, weights: Tensor | None, weighting: Weighting, sample_temperature: float = 1.0
) -> Tensor:
    """The (B, C) weights of a loss: those given, or sample-wise ones where the loss asks for them."""
    if weights is not None:
        return weights
    if weighting == "class":
        raise ValueError(
            "this loss weights by class: pass weights=prior[target] (see ClassPrior), or weighting='sample'"
        )
    logits = natural_logits.detach().to(torch.promote_types(natural_logits.dtype, torch.float32))
    return softened(logits, sample_temperature).softmax(-1)


def check_fields(loss: Any, *weightings: Weighting) -> None:
    """Every number of a loss is finite and not negative, a temperature above 0; its weighting is one of those named."""
    for field in dataclasses.fields(loss):
        value, what = getattr(loss, field.name), f"{type(loss).__name__}: {field.name}"
        if field.name == "weighting":
            if value not in weightings:
                raise ValueError(f"{what}={value!r}, must be {' or '.join(weightings)}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{what}={value!r}, must be a number of at least 0")
        elif field.name.endswith("temperature") and value == 0:
            raise ValueError(f"{what}={value!r}, must be above 0")


@dataclass(frozen=True, kw_only=True)
class KL:
    """``weight · KL(softmax(natural) ‖ softmax(adversarial))``, gradient through both: TRADES (Zhang 2019)."""

    weight: float = 1.0
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        check_fields(self, "none")

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor | None = None) -> Tensor:
        dtype = check_pair(natural_logits, adversarial_logits)
        log_p = natural_logits.to(dtype).log_softmax(-1)
        log_q = adversarial_logits.to(dtype).log_softmax(-1)
        return self.weight * F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


@dataclass(frozen=True, kw_only=True)
class DKL:
    """The decoupled form of KL: wMSE reaches the natural logits only, the cross-entropy the others.

    At weights (1, 1) and ``weighting="sample"`` its gradients are KL's; its value is not.
    """

    wmse_weight: float = 1.0
    ce_weight: float = 1.0
    weighting: Weighting = "sample"

    def __post_init__(self) -> None:
        check_fields(self, "class", "sample")

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor | None = None) -> Tensor:
        weights = _resolve(natural_logits, weights, self.weighting)
        wmse = gap_mse(natural_logits, adversarial_logits.detach(), weights)
        return self.wmse_weight * wmse + self.ce_weight * soft_cross_entropy(natural_logits, adversarial_logits)


@dataclass(frozen=True, kw_only=True)
class IKL:
    """Improved KL: the wMSE reaches both logits, weighted by class-wise mean predictions.

    Defaults are the CIFAR-100 recipe (official ``--beta 20 --alpha 5``).
    ``weighting="sample"`` leaves out the class-wise means.

    ``ce_temperature`` T softens both sides of the cross-entropy, without a factor T²; the wMSE takes the logits as they
    are. ``sample_temperature`` softens sample-wise weights. Official distillation: T 4 and ``--T2`` 100.
    """

    wmse_weight: float = 20.0
    ce_weight: float = 5.0
    ce_temperature: float = 1.0
    sample_temperature: float = 1.0
    weighting: Weighting = "class"

    def __post_init__(self) -> None:
        check_fields(self, "class", "sample")

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor | None = None) -> Tensor:
        weights = _resolve(natural_logits, weights, self.weighting, self.sample_temperature)
        return gap_mse_and_cross_entropy(
            natural_logits,
            adversarial_logits,
            weights,
            wmse_weight=self.wmse_weight,
            ce_weight=self.ce_weight,
            ce_temperature=self.ce_temperature,
        )


@dataclass(frozen=True, kw_only=True)
class GKL:
    """Generalised KL (arXiv 2503.08038): IKL with weights raised to ``gamma`` and normalised over the batch.

    With v = weights^gamma and S_i = Σ_c v_ic the wMSE is Σ_i gap_mse_i / Σ_i S_i². ``gamma=1`` on rows that sum to 1
    equals IKL; ``gamma=0`` weights every pair of classes alike. Temperatures as in IKL.
    """

    wmse_weight: float = 20.0
    ce_weight: float = 4.0
    gamma: float = 0.4
    ce_temperature: float = 1.0
    sample_temperature: float = 1.0
    weighting: Weighting = "class"

    def __post_init__(self) -> None:
        check_fields(self, "class", "sample")

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor | None = None) -> Tensor:
        weights = _resolve(natural_logits, weights, self.weighting, self.sample_temperature)
        v = weights.detach().to(torch.promote_types(weights.dtype, torch.float32)).pow(self.gamma)
        pairs = v.sum(-1).square().sum()
        pairs = torch.where(pairs > 0, pairs, 1)  # weights that are all zero have zero loss
        wmse = gap_mse(natural_logits, adversarial_logits, v, reduction="none").sum() / pairs
        dtype = check_pair(natural_logits, adversarial_logits)
        soft_m = softened(natural_logits.to(dtype), self.ce_temperature)
        soft_n = softened(adversarial_logits.to(dtype), self.ce_temperature)
        return self.wmse_weight * wmse + self.ce_weight * soft_cross_entropy(soft_m, soft_n)
