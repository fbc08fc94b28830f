"""Shared by the loss tests: random logits and weights, and gradients in both arguments."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def logits(rows: int, classes: int, dtype: torch.dtype = torch.float64, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Two unlike sets of logits ``[rows, classes]``."""
    return scale * torch.randn(rows, classes, dtype=dtype), scale * torch.randn(rows, classes, dtype=dtype)


def prior_weights(rows: int, classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of a made-up class prior: positive, sum 1, unlike any softmax of the logits."""
    table = torch.rand(rows, classes, dtype=dtype).pow(3) + 0.01
    return table / table.sum(-1, keepdim=True)


def value_and_gradients(loss: Loss, m: Tensor, n: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``loss(m, n, weights)`` and its gradients in m and n; zero where the loss does not reach one of them."""
    m, n = m.clone().requires_grad_(), n.clone().requires_grad_()
    value = loss(m, n, weights)
    grad_m, grad_n = torch.autograd.grad(value.sum(), (m, n), materialize_grads=True)
    return value.detach(), grad_m, grad_n
