r"""Losses by which the prediction n on a strong view follows the prediction m on a weak one, without labels.

With p = softmax(m) and q = softmax(n), mean over the batch:

    PseudoLabelCE    weight · CE(q, argmax p)                FixMatch, Sohn et al. 2020
    SoftCE           weight · −Σ p log q, p unsharpened      the gradient of KL(p ‖ q) in n
    ProbabilityMSE   weight · Σ (p − q)² / C                 Mean-Teacher, Tarvainen & Valpola 2017

The weak prediction gets no gradient. Each is a frozen, stateless dataclass called with ``(weak_logits[B, C],
strong_logits[B, C])``. IKL and GKL serve the same purpose, with ``weighting="sample"``. All arithmetic is in float32 or
float64.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor

from dkl.losses.base import BaseLoss, Weighting
from dkl.losses.wmse import check_pair, soft_cross_entropy
from dkl.validation import WEIGHT


@dataclass(frozen=True, kw_only=True)
class PseudoLabelCE(BaseLoss):
    """``weight`` · cross-entropy of the strong prediction with the likeliest class of the weak one."""

    weight: Annotated[float, WEIGHT] = 1.0
    weighting: ClassVar[Weighting] = "none"

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        dtype = check_pair(weak_logits, strong_logits)
        return self.weight * F.cross_entropy(strong_logits.to(dtype), weak_logits.argmax(-1))


@dataclass(frozen=True, kw_only=True)
class SoftCE(BaseLoss):
    """``weight`` · cross-entropy of the strong prediction with the weak one."""

    weight: Annotated[float, WEIGHT] = 1.0
    weighting: ClassVar[Weighting] = "none"

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        return self.weight * soft_cross_entropy(weak_logits, strong_logits)


@dataclass(frozen=True, kw_only=True)
class ProbabilityMSE(BaseLoss):
    """``weight`` · squared difference of the probabilities, the mean over classes."""

    weight: Annotated[float, WEIGHT] = 1.0
    weighting: ClassVar[Weighting] = "none"

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        dtype = check_pair(weak_logits, strong_logits)
        target = weak_logits.detach().to(dtype).softmax(-1)
        return self.weight * F.mse_loss(strong_logits.to(dtype).softmax(-1), target)
