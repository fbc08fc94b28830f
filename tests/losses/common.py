"""Shared by the loss tests: random logits and weights, and gradients in both arguments."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dkl.losses
from dkl.losses import BaseLoss, ClassComparing

Loss = Callable[..., Tensor]
"""A loss of the package, or a function of two logits and weights ``[B, C]``."""


def call(loss: Loss, m: Tensor, n: Tensor, third: Tensor) -> Tensor:
    """``loss`` of two logits; ``third`` are weights or labels, passed by the keyword that the loss wants."""
    weighting = getattr(loss, "weighting", None)
    if weighting is None:
        return loss(m, n, third)
    if weighting == "none":
        return loss(m, n)
    compared = {"class_distances": class_distances(m.shape[-1])} if isinstance(loss, ClassComparing) else {}
    return loss(m, n, labels=third, **compared) if weighting == "label" else loss(m, n, weights=third)


def class_distances(classes: int) -> Tensor:
    """Distances between classes on a line, at most 1, not the same both ways."""
    place = torch.linspace(0, 1, classes, dtype=torch.float64)
    apart = place - place[:, None]
    return apart.abs().sqrt() * (1 - 0.2 * (apart > 0))


def logits(rows: int, classes: int, dtype: torch.dtype = torch.float64, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Two different sets of logits ``[rows, classes]``."""
    return scale * torch.randn(rows, classes, dtype=dtype), scale * torch.randn(rows, classes, dtype=dtype)


def prior_weights(rows: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of an invented class prior: positive, of sum 1, different from any softmax of the logits."""
    table = torch.rand(rows, classes, dtype=dtype).pow(3) + 0.01
    return table / table.sum(-1, keepdim=True)


def value_and_gradients(loss: Loss, m: Tensor, n: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients in m and n, zero if it does not depend on one of them."""
    m, n = m.clone().requires_grad_(), n.clone().requires_grad_()
    value = call(loss, m, n, weights)
    grad_m, grad_n = torch.autograd.grad(value.sum(), (m, n), materialize_grads=True)
    return value.detach(), grad_m, grad_n


def assert_same(ours: Loss, oracle: Loss, m: Tensor, n: Tensor, weights: Tensor) -> None:
    """Values and both gradients are equal up to float64 rounding."""
    got, expected = value_and_gradients(ours, m, n, weights), value_and_gradients(oracle, m, n, weights)
    for ours_part, oracle_part in zip(got, expected, strict=True):
        torch.testing.assert_close(ours_part, oracle_part, rtol=1e-10, atol=1e-12)


PAIR_LOSSES: dict[str, type[BaseLoss]] = {
    name: found
    for name in dkl.losses.__all__
    if isinstance(found := getattr(dkl.losses, name), type) and issubclass(found, BaseLoss) and found is not BaseLoss
}
"""The losses of the package, by name."""

EACH_LOSS = pytest.mark.parametrize("kind", PAIR_LOSSES.values(), ids=PAIR_LOSSES)


def third_argument(loss: BaseLoss, rows: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Labels if ``loss`` wants those, else rows of a prior."""
    if loss.weighting == "label":
        return torch.arange(rows) % classes
    return prior_weights(rows, classes, dtype)
