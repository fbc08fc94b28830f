r"""The weighted MSE over pairwise logit gaps, in O(batch·classes) time and memory.

For logits m, n and weights w over the classes of one sample, the paper's wMSE with the official code's factor ¼,

    gap_mse = ¼ Σ_j Σ_k w_j w_k ((m_j − m_k) − (n_j − n_k))²

is a weighted variance: with d = m − n, S = Σ w and μ = Σ w d / S it equals ½ S Σ w (d − μ)². Its gradient is
S w (d − μ) in m, the negative of that in n, and ½ S (d − μ)² + ½ Σ w (d − μ)² in w. The B×C×C tensor of the pairwise
form is never built.

One autograd function computes the wMSE alone, or together with the soft-label cross-entropy
−Σ softmax(m/T) log softmax(n/T); the two share buffers. T softens the cross-entropy only, not the wMSE. All arithmetic
is in float32 or float64, also under autocast and for half-precision inputs.

Dense prediction has logits ``[B, C, H, W]``, and every pixel is a row. They are not copied into rows, whichever
dimension is last in memory, and are computed in blocks: temporary tensors stay small, and on a CPU in the cache.

``torch.func`` and ``torch.compile`` differentiate the equation itself instead of using the function's own gradients:
the one to any order, the other because its fused loops then recompute what would be stored.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]

_dot = torch.linalg.vecdot

_Computed = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Rows, and the gradients in m, n and weights."""


def softened(logits: Tensor, by: float, dim: int = -1) -> Tensor:
    """``logits[..., C]`` divided by the temperature ``by``, as the input of a softmax over ``dim``."""
    if by == 1:
        return logits
    # Subtract the maximum first: dividing logits with a large common offset would round away their differences.
    return (logits - logits.detach().amax(dim, keepdim=True)).div_(by)


def _shifted(m: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """m and n, each less a constant per row, so that their difference loses no bits."""
    # The loss does not change if a constant is added to all logits of a row, but float32 does: if m lies near 10,000
    # and n near 0, then m − n has lost the low bits of n. So if the first logits are 50 or more apart, each side is
    # taken relative to its own first one. Rows that are closer are computed as m − n, unchanged.
    first, second = m.detach().narrow(1, 0, 1), n.detach().narrow(1, 0, 1)
    far = (first - second).abs() >= 50
    return m - first * far, n - second * far


@dataclass(frozen=True)
class _Settings:
    """The numbers of the fused loss; ``sample_temperature`` makes the weights if none are given."""

    wmse_weight: float
    ce_weight: float
    ce_temperature: float
    sample_temperature: float

    @property
    def unit(self) -> float:
        """The factor in units of which gradients are stored."""
        return self.ce_weight / self.ce_temperature or 1.0

    def compute(self, m: Tensor, n: Tensor, weights: Tensor | None, needs: Sequence[bool]) -> _Computed:
        """Twice the loss of each row of ``[N, C]`` or ``[N, C, P]``, and the gradients in m (wMSE only), n and weights.

        All are in units of ``unit``. A gradient that backward does not need is None.
        """
        needs_m, needs_n, needs_w = needs
        if weights is None:
            weights = softened(m.detach(), self.sample_temperature, 1).softmax(1)
        total = weights.sum(1, keepdim=True)
        divisor = total.clamp(min=1e-37)  # a row of zero weights has zero loss, not 0/0
        d, other = _shifted(m, n)
        d.sub_(other)
        del other  # [B, C], before the next ones are made
        # From here on d is d − μ, and g = S w (d − μ) is the wMSE's gradient in m; its dot product with d is the value.
        d.sub_((weights * d).sum(1, keepdim=True) / divisor)
        # Both gradients are stored in units of the cross-entropy's factor, so that softmax(n/T) − softmax(m/T) needs
        # no multiplication of its own: everything is scaled once, at the end and in backward.
        total = total * (self.wmse_weight / self.unit)
        g = (weights * total).mul_(d)
        rows = _dot(g, d, dim=1)
        grad_n = grad_w = None
        if needs_w:
            grad_w = (d.square() * total).add_(rows.unsqueeze(1) / divisor).mul_(0.5)
        if self.ce_weight:
            p = softened(m.detach(), self.ce_temperature, 1).softmax(1)
            log_q = softened(n, self.ce_temperature, 1).log_softmax(1)
            rows = torch.sub(rows, _dot(p, log_q, dim=1), alpha=2 * self.ce_temperature)
            if needs_n:
                grad_n = log_q.exp_().sub_(p).sub_(g)
        # g is not needed if only n gets a gradient and grad_n already contains it.
        return rows, g if needs_m or (needs_n and grad_n is None) else None, grad_n, grad_w

    def equation(self, m: Tensor, n: Tensor, weights: Tensor | None) -> Tensor:
        """The rows that ``compute`` returns, for torch to differentiate."""
        if weights is None:
            weights = softened(m.detach(), self.sample_temperature, 1).softmax(1)
        total, (first, second) = weights.sum(1), _shifted(m, n)
        d = first - second
        mean = ((weights * d).sum(1) / total.clamp(min=1e-37)).unsqueeze(1)
        # The gradient through the mean is zero, so compiled code need not sum it; second derivatives are not.
        first_order = torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
        d = d - (mean.detach() if first_order else mean)
        rows = (weights * d * d).sum(1) * (total * (self.wmse_weight / self.unit))
        if self.ce_weight:
            target = softened(m.detach(), self.ce_temperature, 1)
            p = (target - target.amax(1, keepdim=True)).exp()  # times the row's sum: dividing it last saves a loop
            log_q = softened(n - n.detach().amax(1, keepdim=True), self.ce_temperature, 1)  # plus a constant of the row
            cross = log_q.exp().sum(1).log() - (p * log_q).sum(1) / p.sum(1)
            rows = rows + 2 * self.ce_temperature * cross
        return rows

    def reduced(self, rows: Tensor, reduction: Reduction) -> Tensor:
        """The loss, of the ``rows`` that ``compute`` returns. The mean over no rows is 0."""
        return (rows if reduction == "none" else rows.sum()).mul(0.5 * self.scale(rows, reduction))

    def scale(self, rows: Tensor, reduction: Reduction) -> float:
        """The factor of the stored gradients."""
        return self.unit / max(rows.numel(), 1) if reduction == "mean" else self.unit


BLOCK = {"cpu": 2**18}
"""Elements that are computed together, by device: on a CPU as many as its cache holds, elsewhere ``LARGE_BLOCK``."""

LARGE_BLOCK = 2**25


def _blocks(m: Tensor) -> list[tuple[slice, ...]]:
    """Slices that cut ``m[N, C]`` along N, or ``m[N, C, P]`` along N and P; one for the whole if it is small."""
    size, (rows, classes) = BLOCK.get(m.device.type, LARGE_BLOCK), m.shape[:2]
    if m.numel() <= 4 * size:
        return [(slice(None),)]
    step = max(1, size // classes)
    if m.ndim == 2:
        return [(slice(start, start + step),) for start in range(0, rows, step)]
    cuts = [slice(start, start + step) for start in range(0, m.shape[2], step)]
    return [(slice(row, row + 1), slice(None), cut) for row in range(rows) for cut in cuts]


class _GapMSE(torch.autograd.Function):
    """``wmse_weight · gap_mse(m, n) + ce_weight · soft_cross_entropy(m/T, n/T)``, per row or reduced over rows."""

    @staticmethod
    def forward(
        ctx: Any, m: Tensor, n: Tensor, weights: Tensor | None, settings: _Settings, reduction: Reduction
    ) -> Tensor:
        blocks = _blocks(m)
        needs = needs_m, needs_n, needs_w = ctx.needs_input_grad[:3]
        if len(blocks) == 1:
            rows, g, grad_n, grad_w = settings.compute(m, n, weights, needs)
        else:
            # Temporary tensors are as small as a block; only the gradients have the size of the logits.
            rows = m.new_empty(m.shape[:1] + m.shape[2:])
            g = torch.empty_like(m) if needs_m or (needs_n and not settings.ce_weight) else None
            grad_n = torch.empty_like(m) if needs_n and settings.ce_weight else None
            grad_w = torch.empty_like(m) if needs_w else None
            for at in blocks:
                part = settings.compute(m[at], n[at], None if weights is None else weights[at], needs)
                for whole, value in zip((rows, g, grad_n, grad_w), part, strict=True):
                    if whole is not None and value is not None:
                        whole[at if whole is not rows else at[:1] + at[2:]] = value
        ctx.scale = settings.scale(rows, reduction)
        ctx.save_for_backward(g, grad_n, grad_w)
        return settings.reduced(rows, reduction)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # With create_graph=True the saved tensors would count as constants, and second derivatives would be wrong.
        if torch.is_grad_enabled():
            raise RuntimeError("gap_mse has no second derivative: differentiate it without create_graph=True")
        g, grad_n, grad_w = ctx.saved_tensors
        grad = grad * ctx.scale
        grad = grad.unsqueeze(1) if grad.ndim else grad
        need_m, need_n = ctx.needs_input_grad[:2]
        if need_n:
            grad_n = g * -grad if grad_n is None else grad_n * grad
        for_w = None if grad_w is None else grad_w * grad
        return g * grad if need_m else None, grad_n if need_n else None, for_w, None, None


def check_pair(m: Tensor, n: Tensor, *, dense: bool = False) -> torch.dtype:
    """The dtype in which two logits ``(B, C)`` are compared, at least float32. Raises ValueError if shapes differ.

    With ``dense`` the logits may have further dimensions, ``(B, C, ...)``.
    """
    if not (m.ndim == 2 or (dense and m.ndim > 2)) or m.shape != n.shape:
        raise ValueError(f"both logits must have the same shape (B, C), got {tuple(m.shape)} and {tuple(n.shape)}")
    if m.dtype is n.dtype and m.dtype in (torch.float32, torch.float64):
        return m.dtype
    return torch.promote_types(torch.promote_types(m.dtype, n.dtype), torch.float32)


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is one of torch's."""
    if reduction not in ("mean", "sum", "none"):  # fewer guards of compiled code than get_args
        raise ValueError(f"reduction={reduction!r}, must be mean, sum or none")


def gap_mse_and_cross_entropy(
    m: Tensor,
    n: Tensor,
    weights: Tensor | None,
    *,
    wmse_weight: float,
    ce_weight: float,
    ce_temperature: float = 1.0,
    sample_temperature: float = 1.0,
    reduction: Reduction = "mean",
    dense: bool = False,
) -> Tensor:
    """``wmse_weight · gap_mse(m, n, weights) + ce_weight · soft_cross_entropy(m / T, n / T)`` in one pass.

    T is ``ce_temperature``; the wMSE takes the unsoftened logits. Without ``weights`` they are softmax(m /
    ``sample_temperature``). With ``dense`` the logits may be ``[B, C, ...]``. Arguments, errors and gradients are those
    of the two functions, but one pass is faster and needs less memory than calling both.
    """
    dtype = check_pair(m, n, dense=dense)
    if weights is not None and weights.shape != m.shape:
        raise ValueError(
            f"weights must be (B, C) = {tuple(m.shape)}, one row per sample (such as prior[target]), "
            f"got {tuple(weights.shape)}"
        )
    check_reduction(reduction)
    if not (m.dtype is n.dtype is dtype):
        m, n = m.to(dtype), n.to(dtype)
    if weights is not None and weights.dtype is not dtype:
        weights = weights.to(dtype)
    settings = _Settings(wmse_weight, ce_weight, ce_temperature, sample_temperature)
    others = m.shape[:1] + m.shape[2:]
    channels_last = n.ndim > 2 and n.stride(1) == 1
    m, n = _flat(m, channels_last), _flat(n, channels_last)
    weights = None if weights is None else _flat(weights, channels_last)
    with torch.autocast(m.device.type, enabled=False) if torch.is_autocast_enabled(m.device.type) else nullcontext():
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            rows = settings.reduced(settings.equation(m, n, weights), reduction)
        else:
            rows = _GapMSE.apply(m, n, weights, settings, reduction)
    return rows.view(others) if reduction == "none" and len(others) > 1 else rows


def _flat(tensor: Tensor, channels_last: bool) -> Tensor:
    """``[B, C, ...]`` as ``[B, C, P]``, or as ``[B·P, C]`` if channels are last in memory; a view if it can be."""
    if tensor.ndim == 2:
        return tensor
    if channels_last:
        return tensor.movedim(1, -1).flatten(0, -2)
    return tensor.flatten(2)


def gap_mse(m: Tensor, n: Tensor, weights: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Weighted MSE between the pairwise gaps of ``m[B, C, ...]`` and ``n[B, C, ...]``: ½ S Σ w (d − μ)² per row.

    ``weights``, of the same shape, are non-negative. Detach ``m``, ``n`` or ``weights`` to stop the gradient there.
    Returns the ``"mean"`` or ``"sum"`` over all rows, 0 if there are none, or ``[B, ...]`` (``"none"``), in float32 or
    float64.

    Raises ValueError if shapes differ. Source: the wMSE term of Cui et al. 2024, scaled by ¼ as in their code.
    """
    return gap_mse_and_cross_entropy(m, n, weights, wmse_weight=1.0, ce_weight=0.0, reduction=reduction, dense=True)


def soft_cross_entropy(m: Tensor, n: Tensor, reduction: Reduction = "mean") -> Tensor:
    """−Σ softmax(m) log softmax(n) per row of ``m[B, C, ...]``, ``n[B, C, ...]``; the target ``m`` gets no gradient.

    Reductions, dtype and errors are those of ``gap_mse``.
    """
    dtype = check_pair(m, n, dense=True)
    check_reduction(reduction)
    target = m.detach().to(dtype).softmax(1)
    total = F.cross_entropy(n.to(dtype), target, reduction="none" if reduction == "none" else "sum")
    return total / max(n[:, 0].numel(), 1) if reduction == "mean" else total
