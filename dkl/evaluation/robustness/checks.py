"""AutoAttack's own checks for models that it cannot judge, as plain warnings."""

import warnings

import torch
import torch.nn.functional as F
from pyautoattack import checks
from torch import Tensor, nn


def suspicious(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """What AutoAttack's checks say of ``model`` on one batch: randomised, not logits, zero gradients.

    An empty list is a clean bill. The checks are the package's, thresholds included.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checks.check_randomized(model, x, y, bs=len(x))
        checks.check_range_output(model, x)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        checks.check_zero_gradients(gradient)
    return [str(item.message) for item in caught]


def square_found_more(accuracies: dict[str, float]) -> list[str]:
    """The package's warning where Square, a black-box attack, fooled points that gradients did not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checks.check_square_sr(accuracies)
    return [str(item.message) for item in caught]
