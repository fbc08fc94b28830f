"""Whether attacked images lie in the ball and in the box, to the rounding of float32.

An image may lie up to 1e-4 of the radius beyond it, and 1e-6 more: ``x + eps`` rounds, and so do sums of many pixels.
What attacks return exceeds the radius by less than 1e-7; the class ``AutoAttack`` takes that back.
"""

import math

import torch
from torch import Tensor

from dkl.errors import UserError
from dkl.threat import EvaluatedNorm

_SLACK = 1e-4
"""How far beyond the radius an image may lie, relative to it: sums of many pixels round."""

_ORDERS: dict[EvaluatedNorm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}


def distances(found: Tensor, x: Tensor, norm: EvaluatedNorm) -> Tensor:
    """The distance of each image ``found[B, ...]`` from ``x[B, ...]``, ``[B]``, summed in float64."""
    return torch.linalg.vector_norm((found.double() - x.double()).flatten(1), ord=_ORDERS[norm], dim=1)


def check_inside(name: str, found: Tensor, x: Tensor, norm: EvaluatedNorm, eps: float) -> None:
    """Raise UserError if what attack ``name`` ``found[B, ...]`` is not in [0, 1] or not within ``eps`` of ``x``."""
    low, high = float(found.min()), float(found.max())
    if math.isnan(low):
        raise UserError(f"attack {name} returns NaN: make the gradients of the network finite, or those of the attack")
    if not 0 <= low <= high <= 1:
        raise UserError(f"attack {name} returns images in [{low:.6g}, {high:.6g}], not in [0, 1]: clamp them")
    distance = float(distances(found, x, norm).max())
    if distance > eps * (1 + _SLACK) + 1e-6:
        raise UserError(
            f"attack {name} moves an image by {distance:.6g} in {norm}, more than eps={eps:.6g}: project its images "
            "into the ball"
        )
