r"""KL, DKL, IKL and GKL between a natural (or teacher) and an adversarial (or student) prediction.

The theorem of the paper: the gradients of KL(softmax(m) ‖ softmax(n)) equal those of

    DKL = wmse_weight · gap_mse(m, stop(n), stop(softmax(m))) + ce_weight · soft_cross_entropy(stop(m), n)

at weights (1, 1). IKL lets the gradient of the weighted MSE reach n as well, and weights it by class-wise mean
predictions. GKL raises those weights to a power and normalizes over the batch.

Names. ``wmse_weight`` is the paper's alpha and the official flag ``--beta``; ``ce_weight`` is the paper's beta and the
official flag ``--alpha``. The paper's tables print alpha/4: their 5 is ``wmse_weight=20``.

KL, IKL and GKL also have ``rows``, the loss of every sample; KL and IKL take ``[B, C, H, W]`` too, without copying the
logits (``dkl.losses.base.RowLoss``).

Each class is a frozen, stateless dataclass that keeps the contract of ``dkl.losses.base``: it is called with
``(natural_logits[B, C], adversarial_logits[B, C])`` and, if weighted, ``weights=[B, C]``, and returns the mean over the
batch. ``weighting="class"`` needs the weights, rows of a class prior (``prior[target]``). ``"sample"`` makes them, the
softmax of the natural logits, unless they are given.

In distillation the teacher comes first. ``ce_temperature`` and ``sample_temperature`` serve distillation and are 1
elsewhere.

``dkl.losses.modules`` has drop-in modules that keep their own class prior, for your own training loop.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses.base import BaseLoss, PairLoss, Weighting
from dkl.losses.wmse import check_pair, gap_mse, gap_mse_and_cross_entropy, soft_cross_entropy, softened
from dkl.validation import TEMPERATURE, WEIGHT, Range

NEEDS_WEIGHTS = (
    "weighting='class' needs weights: pass weights=prior[target] (see ClassPrior), or set weighting='sample'"
)


def _resolve(
    natural_logits: Tensor,
    weights: Tensor | None,
    weighting: Weighting,
    sample_temperature: float = 1.0,
    detach: bool = True,
) -> Tensor:
    """The ``[B, C]`` weights of a loss: ``weights`` if given, else sample-wise ones if the loss asks for them."""
    if weights is not None:
        return weights.detach() if detach else weights
    if weighting == "class":
        raise ValueError(NEEDS_WEIGHTS)
    logits = natural_logits.detach() if detach else natural_logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return softened(logits, sample_temperature).softmax(-1)


@dataclass(frozen=True, kw_only=True)
class KL(BaseLoss):
    """``weight · KL(softmax(natural) ‖ softmax(adversarial))``, gradient through both: TRADES (Zhang 2019)."""

    weight: Annotated[float, WEIGHT] = 1.0
    weighting: ClassVar[Weighting] = "none"

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        dtype = check_pair(natural_logits, adversarial_logits)
        log_p = natural_logits.to(dtype).log_softmax(-1)
        log_q = adversarial_logits.to(dtype).log_softmax(-1)
        return self.weight * F.kl_div(log_q, log_p, log_target=True, reduction="sum") / max(len(log_p), 1)

    def rows(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        """The loss of each row of ``[B, C, ...]``: ``[B, ...]``."""
        dtype = check_pair(natural_logits, adversarial_logits, dense=True)
        log_p, log_q = natural_logits.to(dtype).log_softmax(1), adversarial_logits.to(dtype).log_softmax(1)
        return self.weight * F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


@dataclass(frozen=True, kw_only=True)
class DKL(BaseLoss):
    """The decoupled form of KL: the wMSE's gradient reaches the natural logits only, the cross-entropy's the others.

    At weights (1, 1) and ``weighting="sample"`` its gradients are KL's; its value is not.
    """

    wmse_weight: Annotated[float, WEIGHT] = 1.0
    ce_weight: Annotated[float, WEIGHT] = 1.0
    weighting: Weighting = "sample"

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        check_pair(natural_logits, adversarial_logits)
        weights = _resolve(natural_logits, weights, self.weighting)
        wmse = gap_mse(natural_logits, adversarial_logits.detach(), weights)
        return self.wmse_weight * wmse + self.ce_weight * soft_cross_entropy(natural_logits, adversarial_logits)


@dataclass(frozen=True, kw_only=True)
class IKL(BaseLoss):
    """Improved KL: the wMSE's gradient reaches both logits, and its weights are class-wise mean predictions.

    Defaults are the CIFAR-100 recipe (official ``--beta 20 --alpha 5``). With ``weighting="sample"`` the weights are
    the softmax of the natural logits instead.

    ``ce_temperature`` T softens both sides of the cross-entropy, without a factor T²; the wMSE takes the unsoftened
    logits. ``sample_temperature`` softens sample-wise weights. Official distillation: T 4 and ``--T2`` 100.

    Sample-wise weights are constants; with ``detach_weights=False`` the gradient passes through them too, as in the
    official semi-supervised code.
    """

    wmse_weight: Annotated[float, WEIGHT] = 20.0
    ce_weight: Annotated[float, WEIGHT] = 5.0
    ce_temperature: Annotated[float, TEMPERATURE] = 1.0
    sample_temperature: Annotated[float, TEMPERATURE] = 1.0
    weighting: Weighting = "class"
    detach_weights: bool = True

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        weights = _resolve(natural_logits, weights, self.weighting, self.sample_temperature, detach=self.detach_weights)
        return self._fused(natural_logits, adversarial_logits, weights)

    def rows(self, natural_logits: Tensor, adversarial_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """The loss of each row of ``[B, C, ...]``: ``[B, ...]``. Sample-wise weights are made block by block."""
        if weights is None and self.weighting == "class":
            raise ValueError(NEEDS_WEIGHTS)
        if weights is None and not self.detach_weights:
            weights = softened(natural_logits, self.sample_temperature, 1).softmax(1)
        elif weights is not None and self.detach_weights:
            weights = weights.detach()
        return self._fused(natural_logits, adversarial_logits, weights, reduction="none", dense=True)

    def _fused(self, m: Tensor, n: Tensor, weights: Tensor | None, **options: Any) -> Tensor:
        return gap_mse_and_cross_entropy(
            m,
            n,
            weights,
            wmse_weight=self.wmse_weight,
            ce_weight=self.ce_weight,
            ce_temperature=self.ce_temperature,
            sample_temperature=self.sample_temperature,
            **options,
        )


@dataclass(frozen=True, kw_only=True)
class GKL(BaseLoss):
    """Generalized KL (arXiv 2503.08038): IKL with weights raised to ``gamma`` and normalized over the batch.

    With v = weights^gamma and S_i = Σ_c v_ic the wMSE is Σ_i gap_mse_i / Σ_i S_i². ``gamma=1`` on rows that sum to 1
    equals IKL; ``gamma=0`` gives every pair of classes the same weight. Temperatures as in IKL.

    ``normalizer`` replaces Σ_i S_i². If the batch is spread over devices, pass the sum over all of them.
    """

    wmse_weight: Annotated[float, WEIGHT] = 20.0
    ce_weight: Annotated[float, WEIGHT] = 4.0
    gamma: Annotated[float, Range(0, 100, usual=(0, 2))] = 0.4
    ce_temperature: Annotated[float, TEMPERATURE] = 1.0
    sample_temperature: Annotated[float, TEMPERATURE] = 1.0
    weighting: Weighting = "class"

    def _powers(self, natural_logits: Tensor, weights: Tensor | None) -> Tensor:
        """v of the class docstring, ``[B, C]``, in at least float32."""
        weights = _resolve(natural_logits, weights, self.weighting, self.sample_temperature)
        return weights.detach().to(torch.promote_types(weights.dtype, torch.float32)).pow(self.gamma)

    def normalizer(self, natural_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
        """Σ_i S_i² over these samples, a scalar."""
        return self._powers(natural_logits, weights).sum(-1).square().sum()

    def __call__(
        self,
        natural_logits: Tensor,
        adversarial_logits: Tensor,
        *,
        weights: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> Tensor:
        wmse, pairs = self._wmse(natural_logits, adversarial_logits, weights, normalizer)
        soft = self._softened(natural_logits, adversarial_logits)
        return self.wmse_weight * (wmse.sum() / pairs) + self.ce_weight * soft_cross_entropy(*soft)

    def rows(
        self,
        natural_logits: Tensor,
        adversarial_logits: Tensor,
        *,
        weights: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> Tensor:
        """The loss of each row of ``[B, C]``, after the normalization, so that their mean is the loss: ``[B]``."""
        wmse, pairs = self._wmse(natural_logits, adversarial_logits, weights, normalizer)
        soft = self._softened(natural_logits, adversarial_logits)
        return self.wmse_weight * (len(wmse) * wmse / pairs) + self.ce_weight * soft_cross_entropy(*soft, "none")

    def _wmse(self, m: Tensor, n: Tensor, weights: Tensor | None, normalizer: Tensor | None) -> tuple[Tensor, Tensor]:
        """The wMSE of each row, and what their sum is divided by."""
        v = self._powers(m, weights)
        pairs = v.sum(-1).square().sum() if normalizer is None else normalizer
        # If all weights are zero the loss is zero, not 0/0.
        return gap_mse(m, n, v, reduction="none"), torch.where(pairs > 0, pairs, 1)

    def _softened(self, m: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        dtype = check_pair(m, n)
        return softened(m.to(dtype), self.ce_temperature), softened(n.to(dtype), self.ce_temperature)


def split_terms(loss: PairLoss) -> dict[str, PairLoss]:
    """``loss`` without its cross-entropy as ``wmse``, and without its weighted MSE as ``ce``.

    KL is split as DKL, which has the same gradients by the theorem of the paper.
    Raises TypeError if it is not KL, DKL, IKL or GKL.
    """
    if isinstance(loss, KL):
        loss = DKL(wmse_weight=loss.weight, ce_weight=loss.weight, standardize=loss.standardize)
    if not isinstance(loss, DKL | IKL | GKL):
        raise TypeError(f"{type(loss).__name__} has no terms to split: choose KL, DKL, IKL or GKL")
    return {"wmse": dataclasses.replace(loss, ce_weight=0.0), "ce": dataclasses.replace(loss, wmse_weight=0.0)}


def gradient_norms(
    loss: PairLoss, natural_logits: Tensor, adversarial_logits: Tensor, **arguments: Any
) -> dict[str, Tensor]:
    """The norm ``[B]`` of each term's gradient for every sample, by the names of ``split_terms``.

    It is the L2 norm over both logits ``[B, C]`` of the gradient of the sample's own loss, so that it does not depend
    on the batch size. ``arguments`` are those of ``loss``. No graph of the logits is used or kept.
    """
    natural, adversarial = (x.detach().requires_grad_() for x in (natural_logits, adversarial_logits))
    norms = {}
    for name, term in split_terms(loss).items():
        with torch.enable_grad():
            mean = term(natural, adversarial, **arguments)
        gradients = torch.autograd.grad(mean, (natural, adversarial), allow_unused=True, materialize_grads=True)
        norms[name] = len(natural) * torch.cat(gradients, dim=-1).float().norm(dim=-1)
    return norms
