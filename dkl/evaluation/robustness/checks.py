"""Warnings about models whose robustness AutoAttack overestimates; most checks are the package's own."""

import warnings
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pyautoattack import checks
from torch import Tensor, nn

_NOT_FINITE = "are not finite"


def model_warnings(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """Check ``model`` on one batch ``x[B, ...]``, ``y[B]`` and return one warning per problem.

    The problems are random outputs, probabilities instead of logits, and zero gradients. Checks and thresholds are the
    package's.
    """
    # The package reports through Python's warnings and returns nothing.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checks.check_randomized(model, x, y, bs=len(x))
        checks.check_range_output(model, x)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        checks.check_zero_gradients(gradient)
    return [str(item.message) for item in caught]


def square_warnings(accuracies: dict[str, float]) -> list[str]:
    """Return the package's warning if Square, a black-box attack, lowers the accuracy below the gradient attacks'.

    This is a sign of masked gradients. ``accuracies`` maps each attack to the accuracy after it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checks.check_square_sr(accuracies)
    return [str(item.message) for item in caught]


def nonfinite_warnings(counts: dict[str, int]) -> list[str]:
    """Return one warning per attack under which logits were not finite. ``counts`` maps attacks to images."""
    return [
        f"{name}: the logits of {count} attacked images {_NOT_FINITE}; these images count as misclassified"
        for name, count in counts.items()
        if count
    ]


def nonfinite_only(warnings: Iterable[str]) -> list[str]:
    """Return those of ``warnings`` that ``nonfinite_warnings`` made."""
    return [warning for warning in warnings if f"attacked images {_NOT_FINITE}" in warning]
