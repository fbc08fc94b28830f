"""Auto-PGD (Croce and Hein 2020) with AutoAttack's parameters: PGD with momentum and an adaptive step size.

``apgd_ce`` raises the cross-entropy, ``apgd_dlr`` the difference of logits ratio, and ``apgd_targeted`` its targeted
form, for one target class after the other:

    DLR(z, y) = −(z_y − max_{k≠y} z_k) / (z_(1) − z_(3)),   z_(k) the k-th largest logit
    DLR_t(z, y) = −(z_y − z_t) / (z_(1) − (z_(3) + z_(4)) / 2)

The step size is halved, and the search restarted from the best point, if at most 75 % of the steps since the last
checkpoint raised the loss, or if the best loss and the step size have not changed since.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks.named import is_misclassified
from dkl.threat import Norm

_SUCCESSES = 0.75

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps ``logits[B, C]`` and classes ``[B]`` (labels, or labels and targets ``[B, 2]``) to losses ``[B]``."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What all searches share; the checkpoints are those of ``planned`` steps, also if other ``steps`` are taken.

    ``batches`` are the lengths of AutoAttack's batches, one after the other in the images; None for one batch.
    """

    norm: Norm
    eps: float
    seed: int
    steps: int = 100
    planned: int = 100
    batches: Sequence[int] | None = None


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the labels ``classes[B, 1]``, ``[B]``."""
    return F.cross_entropy(logits, classes[:, 0], reduction="none")


def dlr(logits: Tensor, classes: Tensor) -> Tensor:
    """The difference of logits ratio, ``[B]``, for labels ``classes[B, 1]``."""
    ordered, order = logits.sort(dim=1)
    own = logits.gather(1, classes).squeeze(1)
    other = torch.where(order[:, -1] == classes[:, 0], ordered[:, -2], ordered[:, -1])
    return -(own - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def targeted_dlr(logits: Tensor, classes: Tensor) -> Tensor:
    """The targeted difference of logits ratio, ``[B]``, for labels and targets ``classes[B, 2]``."""
    ordered = logits.sort(dim=1)[0]
    own, target = logits.gather(1, classes).unbind(1)
    return -(own - target) / (ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + 1e-12)


@dataclass
class _Search:
    """The state of the images ``[B, ...]`` that are not fooled yet; all fields have the images as first dimension."""

    number: Tensor
    """Index of the image among those that were given."""
    natural: Tensor
    low: Tensor
    """The smallest value of each pixel in the Linf ball and the unit box; ``high`` is the largest."""
    high: Tensor
    classes: Tensor
    current: Tensor
    previous: Tensor
    gradient: Tensor
    step_size: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    best_loss_at_check: Tensor
    halved_at_check: Tensor
    losses: Tensor
    """Loss after each step, ``[B, steps]``; zero for steps not taken."""

    def keep(self, chosen: Tensor) -> "_Search":
        """The state of the images ``chosen[B]``."""
        return _Search(*(getattr(self, field.name)[chosen] for field in fields(self)))


def _gradient(model: nn.Module, x: Tensor, classes: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """The losses ``[B]``, their gradients to ``x``, and whether ``x`` is misclassified, ``[B]``."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        losses = loss(logits, classes)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient, is_misclassified(logits.detach(), classes[:, 0])


def _unit(x: Tensor, norm: Norm) -> Tensor:
    flat = x.flatten(1)
    size = flat.abs().amax(1) if norm == "linf" else (flat**2).sum(-1).sqrt()
    return x / (size.view(-1, 1, 1, 1) + 1e-12)


def _project_(x: Tensor, state: _Search, eps: float, norm: Norm) -> Tensor:
    """Project into the ball around the natural images and into [0, 1]; may change ``x``. L2 in the package's order."""
    if norm == "linf":
        return x.clamp_(state.low, state.high)
    delta = x.sub_(state.natural)
    size = (delta**2).flatten(1).sum(-1).sqrt().view(-1, 1, 1, 1)
    return _unit(delta, norm).mul_(size.clamp_max(eps)).add_(state.natural).clamp_(0, 1)


def _check_progress(state: _Search, step: int, period: int) -> None:
    """Halve the step size of the images whose loss has not risen enough in the last ``period`` steps."""
    recent = torch.arange(step - period, step + 1, device=state.losses.device)
    # At the first check the loss before step 0 is that of the last step, which is still 0: as in the package.
    losses = state.losses[:, recent]
    rises = (losses[:, 1:] > losses[:, :-1]).sum(1)
    stuck = (state.halved_at_check == 0) & (state.best_loss_at_check >= state.best_loss)
    halve = (rises <= period * _SUCCESSES) | stuck
    state.halved_at_check = halve.float()
    state.best_loss_at_check = state.best_loss.clone()
    shape = halve.view(-1, 1, 1, 1)
    state.step_size = torch.where(shape, state.step_size / 2, state.step_size)
    state.current = torch.where(shape, state.best, state.current)
    state.gradient = torch.where(shape, state.best_gradient, state.gradient)


def _take_step(state: _Search, model: nn.Module, loss: Loss, step: int, eps: float, norm: Norm) -> Tensor:
    """Move all images once; return which of them ``[B]`` are misclassified now."""
    # A gradient step, then a mean of it and of the last move; rounded as in the package.
    momentum = 0.75 if step else 1.0
    direction = torch.sign(state.gradient) if norm == "linf" else _unit(state.gradient, norm)
    stepped = _project_(direction.mul_(state.step_size).add_(state.current), state, eps, norm)
    inertia = (state.current - state.previous).mul_(1 - momentum)
    mixed = stepped.sub_(state.current).mul_(momentum).add_(state.current).add_(inertia)
    moved = _project_(mixed, state, eps, norm)
    state.previous, state.current = state.current, moved
    losses, state.gradient, wrong = _gradient(model, moved, state.classes, loss)
    state.losses[:, step] = losses
    better = losses > state.best_loss
    shape = better.view(-1, 1, 1, 1)
    state.best = torch.where(shape, moved, state.best)
    state.best_gradient = torch.where(shape, state.gradient, state.best_gradient)
    state.best_loss = torch.where(better, losses, state.best_loss)
    return wrong


def _apgd(
    model: nn.Module, x: Tensor, classes: Tensor, loss: Loss, start: Tensor, search: _Settings
) -> tuple[Tensor, Tensor]:
    """Search from ``start``; return the adversarial images and which images ``[B]`` are fooled."""
    eps, norm, steps = search.eps, search.norm, search.steps
    result = x.clone()
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    losses, gradient, wrong = _gradient(model, start, classes, loss)
    state = _Search(
        number=torch.arange(len(x), device=x.device),
        natural=x,
        low=(x - eps).clamp_min_(0),
        high=(x + eps).clamp_max_(1),
        classes=classes,
        current=start,
        previous=start,
        gradient=gradient,
        step_size=torch.full((len(x), 1, 1, 1), 2 * eps, dtype=x.dtype, device=x.device),
        best=start,
        best_gradient=gradient,
        best_loss=losses,
        best_loss_at_check=losses,
        halved_at_check=torch.ones_like(losses),
        losses=x.new_zeros(len(x), steps),
    )
    period, since = max(int(0.22 * search.planned), 1), 0
    shortest, shortening = max(int(0.06 * search.planned), 1), max(int(0.03 * search.planned), 1)
    for step in range(-1, steps):
        if step >= 0:
            wrong = _take_step(state, model, loss, step, eps, norm)
        if wrong.any():
            # A fooled image stays fooled, so the package's further steps on it cannot change its flag.
            result[state.number[wrong]] = state.current[wrong]
            fooled[state.number[wrong]] = True
            state = state.keep(~wrong)
            if not len(state.number):
                break
        if step >= 0 and (since := since + 1) == period:
            _check_progress(state, step, period)
            period, since = max(period - shortening, shortest), 0
    return result, fooled


def _start(x: Tensor, eps: float, norm: Norm, counts: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """The first points: every batch, of which ``counts`` images are left, draws from its own generator."""
    # Drawn on the CPU on every device, as in the package, so that all devices draw the same.
    draw = torch.rand if norm == "linf" else torch.randn
    drawn = [
        draw([count, *x.shape[1:]], generator=generator)
        for count, generator in zip(counts, generators, strict=True)
        if count  # a batch without images draws nothing in the package either
    ]
    noise = torch.cat(drawn).to(x.device)
    return (x + eps * _unit(2 * noise - 1 if norm == "linf" else noise, norm)).clamp_(0, 1)


def _restarted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    numbers: Sequence[int | None],
    search: _Settings,
) -> Tensor:
    """One search per entry of ``numbers``, on the images that are not fooled yet.

    An entry is the rank of the target class among the logits, 2 for the most likely other one, or None for no target.
    """
    batches = [len(x)] if search.batches is None else search.batches
    owners = torch.arange(len(batches)).repeat_interleave(torch.tensor(batches))
    generators = [torch.Generator().manual_seed(search.seed) for _ in batches]
    adversarial = x.clone()
    remaining = torch.arange(len(x), device=x.device)
    for number in numbers:
        if not len(remaining):
            break
        images, classes = x[remaining], y[remaining].unsqueeze(1)
        if number is not None:
            classes = torch.cat([classes, model(images).sort(dim=1)[1][:, -number].unsqueeze(1)], 1)
        counts = owners[remaining.cpu()].bincount(minlength=len(batches)).tolist()
        start = _start(images, search.eps, search.norm, counts, generators)
        found, fooled = _apgd(model, images, classes, loss, start, search)
        adversarial[remaining[fooled]] = found[fooled]
        remaining = remaining[~fooled]
    return adversarial


@torch.no_grad()
def _untargeted(loss: Loss, model: nn.Module, x: Tensor, y: Tensor, *, restarts: int = 1, **settings: Any) -> Tensor:
    return _restarted(model, x, y, loss, [None] * restarts, _Settings(**settings))


apgd_ce = partial(_untargeted, cross_entropy)
"""APGD on the cross-entropy; ``x[B, C, H, W]``, ``y[B]``."""

apgd_dlr = partial(_untargeted, dlr)
"""APGD on the DLR loss; ``x[B, C, H, W]``, ``y[B]``; needs at least three classes."""


@torch.no_grad()
def apgd_targeted(
    model: nn.Module, x: Tensor, y: Tensor, *, targets: int = 9, restarts: int = 1, **settings: Any
) -> Tensor:
    """APGD on the targeted DLR loss, for the ``targets`` most likely other classes; needs at least four classes."""
    numbers = [number for number in range(2, targets + 2) for _ in range(restarts)]
    return _restarted(model, x, y, targeted_dlr, numbers, _Settings(**settings))
