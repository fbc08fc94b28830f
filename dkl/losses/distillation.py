r"""Losses that IKL is compared with: between teacher and student, and between two views of an unlabeled image.

With p = softmax(t/T) of the teacher's logits t and q = softmax(s/T) of the student's s, mean over the batch:

    KD   = weight · T² · KL(p ‖ q)                                        Hinton, Vinyals, Dean 2015
    DKD  = T² · (alpha · TCKD + beta · NCKD)                              Zhao et al. 2022
    DIST = T² · (beta · mean_i(1 − ρ(p_i·, q_i·)) + gamma · mean_c(1 − ρ(p_·c, q_·c)))    Huang et al. 2022
    JSD  = weight · ½ (KL(p ‖ (p + q)/2) + KL(q ‖ (p + q)/2))             in nats; no T²
    TTM  = weight · KL(r ‖ softmax(s)), r = softmax(t)^power / U          Zheng & Yang 2024; U: the sum of the powers
    WTTM = weight · U · KL(r ‖ softmax(s))                                the same
    ABKD = weight · D^(alpha, beta)(p ‖ q)                                Wang et al. 2025; no T²
    NormKD = weight · T_t² · KL(softmax(t/T_t) ‖ softmax(s/T_s)), T_x = T · std(x)          Chi et al. 2023

KD and DKD with ``standardize=True`` are KD + LS and DKD + LS, Sun et al. 2024. WKD-L is in ``dkl.losses.transport``.

The prediction n on a strong view follows the prediction m on a weak one, with p = softmax(m) and q = softmax(n):

    PseudoLabelCE    weight · CE(q, argmax p)                FixMatch, Sohn et al. 2020
    SoftCE           weight · −Σ p log q, p unsharpened      the gradient of KL(p ‖ q) in n
    ProbabilityMSE   weight · Σ (p − q)² / C                 Mean-Teacher, Tarvainen & Valpola 2017

Each is a frozen, stateless dataclass called with both logits ``[B, C]``, those of the teacher or of the weak view
first; DKD also takes ``labels=[B]``. All arithmetic is in float32 or float64. The first logits get no gradient, except
from JSD, which is symmetric. IKL and GKL serve the same purposes, with ``weighting="sample"`` for views.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses.base import BaseLoss, Weighting, standardized
from dkl.losses.wmse import Reduction, check_pair, soft_cross_entropy, softened
from dkl.validation import TEMPERATURE, WEIGHT, Range

POWER = Range(0, 10, usual=(0, 2))
"""Powers of probabilities."""

# From the official DIST. Predictions of a rare class can be smaller than this: it then shrinks their correlation.
PEARSON_EPS = 1e-8


def _kl(log_p: Tensor, log_q: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """KL(p ‖ q) over dimension 1: the mean over rows, or each row's value."""
    if reduction == "mean":
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


@dataclass(frozen=True, kw_only=True)
class _Weighted(BaseLoss):
    """A loss of two logits alone, times ``weight``."""

    weight: Annotated[float, WEIGHT] = 1.0
    weighting: ClassVar[Weighting] = "none"


@dataclass(frozen=True, kw_only=True)
class KD(_Weighted):
    """``weight · T² · KL(softmax(teacher/T) ‖ softmax(student/T))``; mdistiller's CIFAR-100 weight is 0.9."""

    logit_temperature: Annotated[float, TEMPERATURE] = 4.0

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        check_pair(teacher_logits, student_logits)
        return self._compute(teacher_logits, student_logits, "mean")

    def rows(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """The loss of each row of ``[B, C, ...]``: ``[B, ...]``."""
        return self._compute(teacher_logits, student_logits, "none")

    def _compute(self, teacher_logits: Tensor, student_logits: Tensor, reduction: Reduction) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits, dense=True)
        log_p = softened(teacher_logits.detach().to(dtype), self.logit_temperature, 1).log_softmax(1)
        log_q = softened(student_logits.to(dtype), self.logit_temperature, 1).log_softmax(1)
        return self.weight * self.logit_temperature**2 * _kl(log_p, log_q, reduction=reduction)


@dataclass(frozen=True, kw_only=True)
class JSD(_Weighted):
    """``weight`` times the Jensen–Shannon divergence of the softened predictions; the gradient reaches both."""

    logit_temperature: Annotated[float, TEMPERATURE] = 1.0

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        log_p = softened(teacher_logits.to(dtype), self.logit_temperature).log_softmax(-1)
        log_q = softened(student_logits.to(dtype), self.logit_temperature).log_softmax(-1)
        log_middle = torch.logaddexp(log_p, log_q) - math.log(2)
        return self.weight * 0.5 * (_kl(log_p, log_middle) + _kl(log_q, log_middle))


def _one_minus_pearson(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Mean of 1 − ρ(a, b), with the Pearson correlation ρ taken along ``dim``."""
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return 1 - ((a * b).sum(dim) / (norms + PEARSON_EPS)).mean()


@dataclass(frozen=True, kw_only=True)
class DIST(BaseLoss):
    """Pearson correlations within each sample (``beta``, inter-class) and within each class (``gamma``, intra-class).

    ``logit_temperature`` is the official tau. The intra-class term correlates over the logits it gets: on several
    devices that is one device's share of the batch.
    """

    beta: Annotated[float, WEIGHT] = 1.0
    gamma: Annotated[float, WEIGHT] = 1.0
    logit_temperature: Annotated[float, TEMPERATURE] = 1.0
    weighting: ClassVar[Weighting] = "none"

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        p = softened(teacher_logits.detach().to(dtype), self.logit_temperature).softmax(-1)
        q = softened(student_logits.to(dtype), self.logit_temperature).softmax(-1)
        inter, intra = _one_minus_pearson(p, q, dim=1), _one_minus_pearson(p, q, dim=0)
        return self.logit_temperature**2 * (self.beta * inter + self.gamma * intra)


def target_mask(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Bool ``[B, C]``: is the class the label? For a loss ``name`` that separates the target from the other classes.

    Raises ValueError if ``labels`` are not int64 ``[B]`` or if there is only one class.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"{name} needs at least 2 classes, got logits of shape {tuple(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels must be int64 of shape (B,) = ({len(logits)},), got {labels.dtype} of {tuple(labels.shape)}"
        )
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), True)


def _decoupled(logits: Tensor, target: Tensor, logit_temperature: float) -> tuple[Tensor, Tensor]:
    """The log-odds ``[B]`` of the target, and the log-probabilities ``[B, C]`` among the other classes (target: 0)."""
    # Subtract the largest other logit before dividing: a common offset or a certain target then costs no precision.
    others = logits.masked_fill(target, -math.inf)
    highest = others.detach().amax(-1, keepdim=True)
    others = (others - highest) / logit_temperature
    total = others.logsumexp(-1, keepdim=True)
    of_target = (logits - highest).masked_fill(~target, 0).sum(-1) / logit_temperature
    return of_target - total.squeeze(-1), (others - total).masked_fill(target, 0)


@dataclass(frozen=True, kw_only=True)
class DKD(BaseLoss):
    """Decoupled KD: ``alpha`` · TCKD (target against the other classes) plus ``beta`` · NCKD (among the others).

    With p_y the target's probability and p̂ the renormalized probabilities of the others, TCKD is the KL of
    (p_y, 1 − p_y) and NCKD the KL of p̂, both times T². KD is TCKD + (1 − p_y) · NCKD with the teacher's p_y.

    Equal to mdistiller up to rounding. mdistiller masks the target by logits/T − 1000, which a softmax turns into 0
    unless the target leads by about 900·T. Here probabilities stay logarithms, so a certain student gives no log 0.
    Raises ValueError if ``labels`` are not int64 ``[B]`` or if there is only one class.
    """

    alpha: Annotated[float, WEIGHT] = 1.0
    beta: Annotated[float, WEIGHT] = 8.0
    logit_temperature: Annotated[float, TEMPERATURE] = 4.0
    weighting: ClassVar[Weighting] = "label"

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor, *, labels: Tensor) -> Tensor:
        return self._compute(teacher_logits, student_logits, labels, "mean")

    def rows(self, teacher_logits: Tensor, student_logits: Tensor, *, labels: Tensor) -> Tensor:
        """The loss of each row of ``[B, C]``: ``[B]``."""
        return self._compute(teacher_logits, student_logits, labels, "none")

    def _compute(self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, reduction: Reduction) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        target = target_mask("DKD", student_logits, labels)
        odds_p, others_p = _decoupled(teacher_logits.detach().to(dtype), target, self.logit_temperature)
        odds_q, others_q = _decoupled(student_logits.to(dtype), target, self.logit_temperature)
        pairs = (torch.stack((F.logsigmoid(odds), F.logsigmoid(-odds)), -1) for odds in (odds_p, odds_q))
        tckd, nckd = _kl(*pairs, reduction=reduction), _kl(others_p, others_q, reduction=reduction)
        return self.logit_temperature**2 * (self.alpha * tckd + self.beta * nckd)


@dataclass(frozen=True, kw_only=True)
class TTM(_Weighted):
    """Transformed teacher matching (arXiv 2402.11148): only the teacher is softened, by a power of its probabilities.

    ``power`` is the official gamma, 1/T. The defaults are the official command for vgg13 to vgg8 (``--ttm_l``, ``-b``).
    """

    weight: Annotated[float, WEIGHT] = 45.0
    power: Annotated[float, Range(0, 10, above=True)] = 0.1
    weighted_by_sum: ClassVar[bool] = False

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        log_powers = self.power * teacher_logits.detach().to(dtype).log_softmax(-1)
        log_sum = log_powers.logsumexp(-1)
        log_q = student_logits.to(dtype).log_softmax(-1)
        rows = _kl(log_powers - log_sum.unsqueeze(-1), log_q, reduction="none")
        return self.weight * (log_sum.exp() * rows if self.weighted_by_sum else rows).mean()


@dataclass(frozen=True, kw_only=True)
class WTTM(TTM):
    """TTM whose samples count by U, the sum of their powers, from 1 for a certain teacher to C^(1 − power).

    The defaults are from the official command that combines it with CRD; those of WTTM alone are in its paper only.
    """

    weight: Annotated[float, WEIGHT] = 4.0
    power: Annotated[float, Range(0, 10, above=True)] = 0.2
    weighted_by_sum: ClassVar[bool] = True


def _alpha_beta(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """The terms of D^(alpha, beta)(p ‖ q), one per class, and its limits as alpha or beta go to 0."""
    if alpha == beta == 0:
        return (log_p - log_q).square() / 2
    if alpha == 0:  # D^(alpha, beta)(p ‖ q) = D^(beta, alpha)(q ‖ p)
        return _alpha_beta(log_q, log_p, beta, alpha)
    if beta == 0:
        p, q = (alpha * log_p).exp(), (alpha * log_q).exp()
        return (p * alpha * (log_p - log_q) - p + q) / alpha**2
    both = alpha + beta
    p, q, mixed = (both * log_p).exp(), (both * log_q).exp(), (alpha * log_p + beta * log_q).exp()
    return (alpha / both * p + beta / both * q - mixed) / (alpha * beta)


@dataclass(frozen=True, kw_only=True)
class ABKD(_Weighted):
    """The α-β-divergence of the softened predictions (arXiv 2505.04560).

        D = −1/(αβ) · Σ_c [p^α q^β − α/(α+β) · p^(α+β) − β/(α+β) · q^(α+β)]

    (1, 0) is KL(p ‖ q), (0, 1) is KL(q ‖ p), (1, 1) is ½‖p − q‖². If alpha or beta is 0, or below 0.005 in float32, it
    is the limit, which the official code multiplies by that power again. Defaults: ResNet-56 to ResNet-20; the weight
    is 2·T² at T 4.
    """

    weight: Annotated[float, WEIGHT] = 32.0
    alpha: Annotated[float, POWER] = 0.8
    beta: Annotated[float, POWER] = 0.3
    logit_temperature: Annotated[float, TEMPERATURE] = 4.0

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        log_p = softened(teacher_logits.detach().to(dtype), self.logit_temperature).log_softmax(-1)
        log_q = softened(student_logits.to(dtype), self.logit_temperature).log_softmax(-1)
        least = torch.finfo(dtype).eps ** (1 / 3)  # of smaller powers little but rounding errors would be left
        alpha, beta = (power if power > least else 0.0 for power in (self.alpha, self.beta))
        return self.weight * _alpha_beta(log_p, log_q, alpha, beta).sum(-1).mean()


@dataclass(frozen=True, kw_only=True)
class NormKD(_Weighted):
    """KD whose temperature is ``logit_temperature`` times the standard deviation of each row (arXiv 2308.00520).

    It is KD of standardized logits, with rows weighted by the variance of the teacher's logits. Raises ValueError if
    there is only one class.
    """

    weight: Annotated[float, WEIGHT] = 0.9
    logit_temperature: Annotated[float, TEMPERATURE] = 2.0

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        dtype = check_pair(teacher_logits, student_logits)
        teacher = teacher_logits.detach().to(dtype)
        log_p = (standardized(teacher) / self.logit_temperature).log_softmax(-1)
        log_q = (standardized(student_logits.to(dtype)) / self.logit_temperature).log_softmax(-1)
        variance = (teacher - teacher.mean(-1, keepdim=True)).square().sum(-1) / (teacher.shape[-1] - 1)
        return self.weight * self.logit_temperature**2 * (variance * _kl(log_p, log_q, reduction="none")).mean()


@dataclass(frozen=True, kw_only=True)
class PseudoLabelCE(_Weighted):
    """``weight`` · cross-entropy of the strong prediction with the likeliest class of the weak one."""

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        dtype = check_pair(weak_logits, strong_logits)
        return self.weight * F.cross_entropy(strong_logits.to(dtype), weak_logits.argmax(-1))


@dataclass(frozen=True, kw_only=True)
class SoftCE(_Weighted):
    """``weight`` · cross-entropy of the strong prediction with the weak one."""

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        check_pair(weak_logits, strong_logits)
        return self.weight * soft_cross_entropy(weak_logits, strong_logits)


@dataclass(frozen=True, kw_only=True)
class ProbabilityMSE(_Weighted):
    """``weight`` · squared difference of the probabilities, the mean over classes."""

    def __call__(self, weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
        dtype = check_pair(weak_logits, strong_logits)
        target = weak_logits.detach().to(dtype).softmax(-1)
        return self.weight * F.mse_loss(strong_logits.to(dtype).softmax(-1), target)
