r"""Projection onto a hyperplane inside the unit box, the step of FAB (Croce and Hein 2020, Section 2.2).

The smallest d, in the Linf or L2 norm, with ⟨w, x + d⟩ = b and x + d in [0, 1]. Every coordinate moves towards the
hyperplane until it meets its bound:

    Linf: |d_i| = min(λ, room_i)                L2: |d_i| = |w_i| min(λ, room_i / |w_i|)

λ solves f(λ) = Σ q_i min(λ, r_i) = need, with q = |w|, r = room for Linf and q = w², r = room / |w| for L2. f is
increasing, concave and piecewise linear, so Newton's method from below never overshoots and ends after a few steps. The
package sorts the coordinates instead, which takes most of its time.
"""

import torch
from torch import Tensor

from dkl.threat import Norm

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
