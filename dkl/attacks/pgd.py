"""Projected gradient ascent (PGD, Madry et al. 2018) of any objective, on images in [0, 1].

    x ← Π(x + step_size · u(∇ objective(model(x))))

u is the sign for Linf and the unit-norm gradient for L2; Π projects onto the ball of radius eps around the natural
images, then onto [0, 1]; for L2 in the reverse order, as TRADES.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dkl.attacks.contexts import BatchNorm, frozen_eval
from dkl.threat import NORMS, Norm

Objective = Callable[[Any], Tensor]
"""A scalar function of what the attacked network returns, usually logits ``[B, C]``."""

Perturb = Callable[..., Tensor]
"""A function of images ``[B, ...]`` and labels ``[B]`` that returns adversarial images."""


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _l2_norms(x: Tensor) -> Tensor:
    """L2 norm of each image, shaped to divide ``x``, and never zero."""
    # An image with zero gradient stays where it is; the official L2 attack moves it at random.
    return _per_image(x.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny), x)


def project(adversarial: Tensor, natural: Tensor, eps: float, norm: Norm = "linf") -> Tensor:
    """Project ``adversarial`` into [0, 1] and into the eps-ball around ``natural``.

    L2 follows the order of TRADES: clamp to [0, 1], then scale the difference down to eps. The result is in both sets.
    """
    if norm == "linf":
        return torch.clamp(adversarial, natural - eps, natural + eps).clamp_(0, 1)
    # Scaling moves a point of the box straight toward the ball's center, which is in the box too: it cannot leave it.
    delta = adversarial.clamp(0, 1) - natural
    return natural + delta * (eps / _l2_norms(delta)).clamp(max=1)


def uniform_noise(
    shape: Sequence[int], eps: float, norm: Norm = "linf", *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw points ``[B, ...]`` uniformly from the eps-ball around zero, with the device and dtype of ``like``."""
    if norm == "linf":
        noise = torch.rand(*shape, generator=generator, device=like.device, dtype=like.dtype)
        return eps * (2 * noise - 1)
    direction = torch.randn(*shape, generator=generator, device=like.device, dtype=like.dtype)
    # The volume of a ball of n dimensions grows as radius^n, so a uniform radius would crowd points at the center.
    draw = torch.rand(shape[0], generator=generator, device=like.device, dtype=like.dtype)
    radius = draw ** (1 / math.prod(shape[1:]))
    return direction * (eps * _per_image(radius, direction) / _l2_norms(direction))


def gaussian_noise(
    shape: Sequence[int], sigma: float, *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw normal noise ``[B, ...]`` of standard deviation ``sigma``, with the device and dtype of ``like``."""
    return sigma * torch.randn(*shape, generator=generator, device=like.device, dtype=like.dtype)


def uniform_start(x: Tensor, eps: float, norm: Norm = "linf", generator: torch.Generator | None = None) -> Tensor:
    """One point per image of ``x``, drawn uniformly from its eps-ball and clamped to [0, 1]."""
    return (x + uniform_noise(x.shape, eps, norm, like=x, generator=generator)).clamp_(0, 1)


def gaussian_start(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """``x`` plus Gaussian noise, not projected: the start of TRADES and of the official code (sigma 0.001)."""
    return x + gaussian_noise(x.shape, sigma, like=x, generator=generator)


def _check(x: Tensor, eps: float, step_size: float, steps: int, norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}")
    if not 0 <= eps <= 1 and norm == "linf":
        raise ValueError(f"eps={eps} must be in [0, 1], in pixel units: for 8 gray levels write 8 / 255")
    if eps < 0 or step_size < 0 or steps < 0:
        raise ValueError(f"eps={eps}, step_size={step_size} and steps={steps} must not be negative")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], not {x.dtype}: divide uint8 images by 255")


def pgd(
    model: nn.Module,
    x: Tensor,
    objective: Objective,
    *,
    eps: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_norm: BatchNorm = "running",
) -> Tensor:
    """Adversarial images for ``x[B, ...]`` in [0, 1] that raise ``objective(model(x_adv))``, a scalar.

    ``eps`` and ``step_size`` are in pixel units of [0, 1]. The objective is a sum or mean over samples. ``start`` is
    the first point (``x`` for BIM, ``gaussian_start(x, 0.001)`` for TRADES); by default it is drawn uniformly from the
    ball, with ``generator`` if given. The model runs in ``frozen_eval`` (``batch_norm`` selects its statistics) and is
    restored afterwards; the result has no graph. Raises ValueError if norm, eps, steps or dtype are invalid.
    """
    _check(x, eps, step_size, steps, norm)
    natural = x.detach()
    adversarial = uniform_start(natural, eps, norm, generator) if start is None else start.detach()
    # For Linf, ball and [0, 1] together are one box per image.
    low, high = (natural - eps).clamp_(min=0), (natural + eps).clamp_(max=1)
    with frozen_eval(model, batch_norm), torch.enable_grad():
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            # autograd.grad returns the image gradient only; backward() would also fill the grad of anything unfrozen.
            (gradient,) = torch.autograd.grad(objective(model(adversarial)), adversarial)
            adversarial = adversarial.detach()
            if norm == "l2":
                adversarial = project(adversarial + step_size * (gradient / _l2_norms(gradient)), natural, eps, norm)
            else:  # a multiple of a sign is exact: three kernels per step
                adversarial = torch.add(adversarial, gradient.sign(), alpha=step_size).clamp_(low, high)
    return adversarial.detach()
