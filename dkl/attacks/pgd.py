"""Projected gradient ascent on images in [0, 1], with the objective passed in (Madry et al. 2018).

    x ← Π(x + step_size · u(∇ objective(model(x))))

u is the sign for Linf and the unit-norm gradient for L2; Π projects onto the ball of radius eps around the natural
images, then onto [0, 1].
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dkl.attacks.contexts import BatchNorm, frozen_eval
from dkl.threat import NORMS, Norm

Objective = Callable[[Tensor], Tensor]


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _l2_norms(x: Tensor) -> Tensor:
    """L2 norm of each image, shaped to divide ``x``, and never zero."""
    return _per_image(x.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny), x)


def project(adversarial: Tensor, natural: Tensor, eps: float, norm: Norm = "linf") -> Tensor:
    """``adversarial`` inside [0, 1] and the eps-ball around ``natural``.

    For L2 it is clamped to [0, 1] first and then pulled in, in the order of TRADES; the ball's centre lies in the box,
    so the result lies in both.
    """
    if norm == "linf":
        return torch.clamp(adversarial, natural - eps, natural + eps).clamp_(0, 1)
    delta = adversarial.clamp(0, 1) - natural
    return natural + delta * (eps / _l2_norms(delta)).clamp(max=1)


def uniform_noise(
    shape: Sequence[int], eps: float, norm: Norm = "linf", *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Points ``[B, ...]`` drawn uniformly from the eps-ball around zero, of the device and dtype of ``like``."""
    if norm == "linf":
        noise = torch.rand(*shape, generator=generator, device=like.device, dtype=like.dtype)
        return eps * (2 * noise - 1)
    direction = torch.randn(*shape, generator=generator, device=like.device, dtype=like.dtype)
    draw = torch.rand(shape[0], generator=generator, device=like.device, dtype=like.dtype)
    radius = draw ** (1 / math.prod(shape[1:]))
    return direction * (eps * _per_image(radius, direction) / _l2_norms(direction))


def gaussian_noise(
    shape: Sequence[int], sigma: float, *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Normal noise ``[B, ...]`` of standard deviation ``sigma``, of the device and dtype of ``like``."""
    return sigma * torch.randn(*shape, generator=generator, device=like.device, dtype=like.dtype)


def uniform_start(x: Tensor, eps: float, norm: Norm = "linf", generator: torch.Generator | None = None) -> Tensor:
    """A point drawn uniformly from the eps-ball around each image of ``x``, clamped to [0, 1]."""
    return (x + uniform_noise(x.shape, eps, norm, like=x, generator=generator)).clamp_(0, 1)


def gaussian_start(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """``x`` plus Gaussian noise, unprojected, as TRADES and the official code start their attack (sigma 0.001)."""
    return x + gaussian_noise(x.shape, sigma, like=x, generator=generator)


def _check(x: Tensor, eps: float, step_size: float, steps: int, norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
    if not 0 <= eps <= 1 and norm == "linf":
        raise ValueError(f"eps is in [0, 1] pixel units, not {eps}; for 8 grey levels write 8 / 255")
    if eps < 0 or step_size < 0 or steps < 0:
        raise ValueError(f"eps, step_size and steps must not be negative: {eps}, {step_size}, {steps}")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], not {x.dtype}")


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

    ``eps`` and ``step_size`` are in pixel units of [0, 1]. The objective should treat samples apart (a sum or mean
    over them). ``start`` is where to begin (``x`` itself for BIM, ``gaussian_start(x, 0.001)`` for TRADES); without
    it, a uniform draw from the ball, by ``generator`` where given. The model runs in attack mode (``batch_norm`` says
    with which statistics) and is left as it was; the result carries no graph. Raises ValueError on a bad norm, eps,
    step or dtype.
    """
    _check(x, eps, step_size, steps, norm)
    natural = x.detach()
    adversarial = uniform_start(natural, eps, norm, generator) if start is None else start.detach()
    with frozen_eval(model, batch_norm), torch.enable_grad():
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(model(adversarial)), adversarial)
            direction = gradient.sign() if norm == "linf" else gradient / _l2_norms(gradient)
            adversarial = project(adversarial.detach() + step_size * direction, natural, eps, norm)
    return adversarial.detach()
