r"""FAB-T: the targeted Fast Adaptive Boundary attack (Croce and Hein 2020) with AutoAttack's parameters.

Each step linearizes the difference of two logits, projects the iterate and the clean image onto the hyperplane where it
is zero, and moves to a mean of the two. After a misclassified iterate the search goes on nearer to the clean image.
There is no random start with one restart, so an image's result does not depend on the images in its batch.

The projection (Section 2.2 there) is the smallest d, in the Linf or L2 norm, with ⟨w, x + d⟩ = b and x + d in [0, 1].
Every coordinate moves towards the hyperplane until it meets its bound:

    Linf: |d_i| = min(λ, room_i)                L2: |d_i| = |w_i| min(λ, room_i / |w_i|)

λ solves f(λ) = Σ q_i min(λ, r_i) = need, with q = |w|, r = room for Linf and q = w², r = room / |w| for L2. f is
increasing, concave and piecewise linear, so Newton's method from below never overshoots and ends after a few steps. The
package sorts the coordinates instead, which takes most of its time.
"""

import torch
from torch import Tensor, nn

from dkl.attacks.named import is_misclassified
from dkl.threat import Norm

_MAX_ALPHA, _OVERSHOOT, _BACKWARD = 0.1, 1.05, 0.9

_NEWTON_STEPS = 50
"""A bound that is not met in practice: 4 to 8 steps are usual for images."""


def distances(moves: Tensor, norm: Norm) -> Tensor:
    """The norm of each row of ``moves[B, n]``, ``[B]``."""
    # torch's vector norm takes ten times as long as the maximum.
    return moves.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(moves, dim=1)


def _level(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Solve ``Σ weight min(λ, room) = need`` for ``λ[B, 1]``, with ``weight[B, n]``, ``room[B, n]``, ``need[B]``.

    Infinite if the box is left before the hyperplane is reached.
    """
    reachable = torch.linalg.vecdot(weight, room) > need
    level = need / weight.sum(1)
    for _ in range(_NEWTON_STEPS):
        wanting = need - torch.linalg.vecdot(weight, torch.minimum(room, level.unsqueeze(1)))
        slope = torch.linalg.vecdot(weight, (room > level.unsqueeze(1)).to(weight.dtype))
        # Rounding leaves a residue of a few units in the last place, which would never become zero.
        moving = reachable & (slope > 0) & (wanting > 1e-6 * need)
        if not moving.any():
            break
        level = torch.where(moving, level + wanting / slope, level)
    return torch.where(reachable, level, torch.inf).unsqueeze(1)


def project_onto_hyperplane(x: Tensor, w: Tensor, excess: Tensor, norm: Norm) -> Tensor:
    """Return ``d[B, n]`` that moves ``x[B, n]`` onto the hyperplane with normals ``w[B, n]``.

    ``excess[B]`` is ⟨w, x⟩ − b, the side and distance of ``x``. If the hyperplane does not meet the box, ``x + d`` is
    the corner of the box that is nearest to it. Coordinates with a zero normal do not move.
    """
    w = w * torch.where(excess < 0, 1, -1).unsqueeze(1)  # so that d has the signs of w
    room = torch.where(w > 0, 1 - x, x)
    size = w.abs()
    if norm == "linf":
        return torch.minimum(room, _level(size, room, excess.abs())).mul_(w.sign_())
    # As the package: such coordinates contribute nothing, and their quotient would overflow.
    size = torch.where(size > 1e-8, size, 0)
    room = torch.where(size > 0, room / size, 0)
    return torch.minimum(room, _level(size**2, room, excess.abs())).mul_(size).mul_(w.sign_())


def _moved(flat: Tensor, clean: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The next iterates of ``flat[B, n]``, in the unit box, by the gap's gradient ``normal[B, n]``."""
    excess = gap + torch.linalg.vecdot(normal, clean - flat)
    # Both projections in one call.
    moves = project_onto_hyperplane(
        torch.cat([flat, clean]), torch.cat([normal, normal]), torch.cat([gap, excess]), norm
    )
    near, far = moves.chunk(2)
    distance_near, distance_far = distances(moves, norm).clamp_min_(1e-8).unsqueeze(1).chunk(2)
    alpha = (distance_near / (distance_near + distance_far)).clamp_(0, _MAX_ALPHA)
    near = near.mul_(_OVERSHOOT).add_(flat).mul_(1 - alpha)
    far = far.mul_(_OVERSHOOT).add_(clean).mul_(alpha)
    return near.add_(far).clamp_(0, 1)


def _one_target(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, norm: Norm, eps: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Attack towards the classes ``target[B]``; return adversarial images and which images ``[B]`` are fooled."""
    adversarial, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    remaining = torch.arange(len(x), device=x.device)
    iterate = x
    for _ in range(steps):
        leaf = iterate.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(leaf)
            gap = (logits.gather(1, target.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)
            (gradient,) = torch.autograd.grad(gap.sum(), leaf)
        moved = _moved(iterate.flatten(1), x.flatten(1), gradient.flatten(1), gap.detach(), norm)
        iterate = moved.view_as(x)
        wrong = is_misclassified(model(iterate), y)
        if not wrong.any():
            continue
        move = iterate - x
        settled = wrong & (distances(move.flatten(1), norm) <= eps)
        if settled.any():
            # The package's search for a still smaller perturbation cannot change the flag of a settled image.
            adversarial[remaining[settled]] = iterate[settled]
            fooled[remaining[settled]] = True
            kept = ~settled
            x, y, target, remaining = x[kept], y[kept], target[kept], remaining[kept]
            iterate, move, wrong = iterate[kept], move[kept], wrong[kept]
            if not len(remaining):
                break
        iterate = torch.where(wrong.view(-1, *[1] * (x.dim() - 1)), x + move * _BACKWARD, iterate)
    return adversarial, fooled


@torch.no_grad()
def fab_targeted(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, targets: int = 9, steps: int = 100
) -> Tensor:
    """FAB-T towards the ``targets`` most likely other classes; ``x[B, ...]``, ``y[B]``."""
    adversarial = x.clone()
    order = model(x).argsort(1)
    remaining = (order[:, -1] == y).nonzero().squeeze(1)
    for number in range(2, targets + 2):
        if not len(remaining):
            break
        found, fooled = _one_target(model, x[remaining], y[remaining], order[remaining, -number], norm, eps, steps)
        adversarial[remaining[fooled]] = found[fooled]
        remaining = remaining[~fooled]
    return adversarial
