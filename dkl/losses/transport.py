r"""WKD-L: the Wasserstein distance between the predictions of teacher and student (Lv et al. 2024, arXiv 2412.08139).

With y the label, p and q the softmax of the teacher's and the student's logits at temperature T over the other classes:

    WKD = mean_i −p_y log q_y (both at T 1) + weight · mean_i ⟨F_i, K⟩,        K = relu(1 − exp(−sharpness · D)) + 1e-8

D are the distances between classes, and F_i the flow of probability, from q to p, that Sinkhorn's iterations find:

    G = exp(−K/ε);  u = 1/(C − 1);  repeat: v = p / (Gᵀu), u = q / (Gv);  F = diag(u) G diag(v)

Each sample has its own classes, all but y, but one G serves all: p and q are 0 at y, hence so are u and v, and a row
and a column of G drop out. An iteration is two products of ``[B, C]`` with ``[C, C]``, without a copy of K per sample.
The logarithms of u and v are kept, so that float32 neither over- nor underflows. There is no factor T². The gradient
passes through all iterations.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses.base import BaseLoss, Distances, Weighting
from dkl.losses.distillation import target_mask
from dkl.losses.wmse import check_pair, softened
from dkl.validation import SHARE, TEMPERATURE, Range

LEAST_COST = 1e-8
"""Added to all costs by the official code."""


def classifier_distances(rows: Tensor) -> Tensor:
    """``[C, C]``: 1 − cosine of the ``rows[C, D]`` of a classifier's weights; 1 from a row of zeros to all others."""
    rows = F.normalize(rows.detach(), dim=-1)
    return (1 - rows @ rows.T).fill_diagonal_(0)


def feature_distances(features: Tensor) -> Tensor:
    """``[C, C]``: 1 − linear CKA of ``features[C, n, D]``, those of n images of every class.

    CKA = ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centered X and Y is the cosine of their Gram matrices XXᵀ and YYᵀ. Which image of
    one class is compared with which of another follows from their order, as in the official code. A class whose
    features are all equal, such as zeros, has distance 1 to all others.
    """
    centered = features.detach() - features.detach().mean(1, keepdim=True)
    return classifier_distances((centered @ centered.mT).flatten(1))


def _log_product(log_x: Tensor, matrix: Tensor) -> Tensor:
    """log(x @ matrix) for positive ``x[B, J]``, given its logarithm (−∞ is allowed), and positive ``matrix[J, K]``."""
    highest = log_x.detach().amax(-1, keepdim=True)
    return ((log_x - highest).exp() @ matrix).log() + highest


def transport_cost(log_p: Tensor, log_q: Tensor, cost: Tensor, *, smoothing: float, iterations: int) -> Tensor:
    """⟨F, cost⟩ of every row ``[B]``: Sinkhorn's flow from q to p, given as logarithms ``[B, C]``, between C classes.

    Classes of probability 0 take no part; ``smoothing`` is ε. The rows of F always sum to q; its columns sum to p once
    ``iterations`` suffice.
    """
    kernel = (-cost / smoothing).exp()
    log_v, log_u = log_p, torch.zeros_like(log_q).masked_fill(log_q.isneginf(), -math.inf)
    for _ in range(iterations):
        log_v = log_p - _log_product(log_u, kernel)
        log_u = log_q - _log_product(log_v, kernel.T)
    return (log_u + _log_product(log_v, (kernel * cost).T)).exp().sum(-1)


@dataclass(frozen=True, kw_only=True)
class WKD(BaseLoss):
    """WKD-L; takes the ``labels[B]`` and ``class_distances[C, C]``, those of ``distances`` (``ClassComparing``).

    ``sharpness`` is the official kappa (0: the distances are the costs), ``smoothing`` its epsilon. The transport's
    weight falls to 0 by half a cosine after the share ``decay_from`` of training. Defaults: ResNet-32x4 to ResNet-8x4.
    Ten iterations do not reach p if most distances are near 1, as those of a classifier's rows: there take 100.

    The official code adds 1e-8 to the products of Sinkhorn's iterations, which logarithms do not need. Raises
    ValueError if a shape or type is wrong or if there is only one class.
    """

    weight: Annotated[float, Range(0, 1e6, usual=(0, 1000))] = 600.0
    logit_temperature: Annotated[float, TEMPERATURE] = 8.0
    sharpness: Annotated[float, Range(0, 100)] = 1.0
    smoothing: Annotated[float, Range(0.03, 100)] = 0.05  # below, the kernel of distances up to 2 underflows
    iterations: Annotated[int, Range(1, 1e5)] = 10
    decay_from: Annotated[float, SHARE] = 0.625
    distances: Distances = "features"
    weighting: ClassVar[Weighting] = "label"

    def at(self, share: float) -> "WKD":
        """The loss of the epoch that ends when this ``share`` of training is done."""
        if share <= self.decay_from:
            return self
        passed = (share - self.decay_from) / (1 - self.decay_from)
        return dataclasses.replace(self, weight=self.weight * 0.5 * (1 + math.cos(math.pi * passed)))

    def __call__(
        self, teacher_logits: Tensor, student_logits: Tensor, *, labels: Tensor, class_distances: Tensor
    ) -> Tensor:
        dtype, classes = check_pair(teacher_logits, student_logits), teacher_logits.shape[-1]
        target = target_mask("WKD", student_logits, labels)
        if class_distances.shape != (classes, classes):
            raise ValueError(
                f"class_distances must be (C, C) = ({classes}, {classes}), as many as the logits have, got "
                f"{tuple(class_distances.shape)}"
            )
        distances = class_distances.detach().to(teacher_logits.device, dtype)
        cost = F.relu(1 - (-self.sharpness * distances).exp() if self.sharpness else distances) + LEAST_COST
        teacher, student = teacher_logits.detach().to(dtype), student_logits.to(dtype)
        confidence = teacher.softmax(-1)[target]
        log_p, log_q = (
            softened(logits.masked_fill(target, -math.inf), self.logit_temperature).log_softmax(-1)
            for logits in (teacher, student)
        )
        with torch.autocast(teacher.device.type, enabled=False):  # bfloat16 products would be too coarse
            moved = transport_cost(log_p, log_q, cost, smoothing=self.smoothing, iterations=self.iterations)
        return (self.weight * moved - confidence * student.log_softmax(-1)[target]).mean()
