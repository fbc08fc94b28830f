"""Losses between two views equal plain loops over samples, and the wMSE's weights can be differentiated too."""

import math

import pytest
import torch
from torch import Tensor

from dkl.losses import IKL, ProbabilityMSE, PseudoLabelCE, SoftCE, gap_mse
from tests.losses.common import Loss, logits, value_and_gradients
from tests.official.oracles import pairwise_gap_mse


def loop(weak: Tensor, strong: Tensor, kind: str) -> Tensor:
    """The mean over samples, class by class, with gradient to the strong view only."""
    total, classes = torch.zeros((), dtype=weak.dtype), weak.shape[1]
    for m, n in zip(weak.detach(), strong, strict=True):
        p, q = m.exp() / m.exp().sum(), n.exp() / n.exp().sum()
        if kind == "hard":
            total = total - q[max(range(classes), key=lambda c: m[c].item())].log()
        elif kind == "soft":
            total = total - sum(p[c] * q[c].log() for c in range(classes))
        else:
            total = total + sum((p[c] - q[c]) ** 2 for c in range(classes)) / classes
    return total / len(weak)


@pytest.mark.parametrize(
    ("kind", "loss"), [("hard", PseudoLabelCE()), ("soft", SoftCE()), ("mse", ProbabilityMSE())], ids=str
)
def test_a_loss_is_a_loop_over_samples(kind: str, loss: Loss) -> None:
    m, n = logits(5, 4)
    ours = value_and_gradients(loss, m, n, m)
    theirs = value_and_gradients(lambda m, n, _: loop(m, n, kind), m, n, m)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert not ours[1].any()
    torch.testing.assert_close(type(loss)(weight=3.0)(m, n), 3 * ours[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("total", [1.0, 2.5])
def test_the_gradient_in_the_weights_is_that_of_the_pairs(total: float) -> None:
    m, n = logits(6, 5)
    weights = (total * torch.rand(6, 5, dtype=torch.float64).softmax(-1)).requires_grad_()
    (ours,) = torch.autograd.grad(gap_mse(m, n, weights), weights)
    (pairs,) = torch.autograd.grad(pairwise_gap_mse(m, n, weights).mean(), weights)
    torch.testing.assert_close(ours, pairs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda w: gap_mse(m, n, w, "none"), weights)


def test_weights_made_from_the_weak_view_are_differentiated_on_request() -> None:
    def official(m: Tensor, n: Tensor, _: Tensor) -> Tensor:
        return pairwise_gap_mse(m, n, m.softmax(-1)).mean()

    m, n = logits(6, 5)
    values = {
        detach: value_and_gradients(
            lambda m, n, _, detach=detach: IKL(
                wmse_weight=1.0, ce_weight=0.0, weighting="sample", detach_weights=detach
            )(m, n),
            m,
            n,
            m,
        )
        for detach in (True, False)
    }
    for ours, theirs in zip(values[False], value_and_gradients(official, m, n, m), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert math.isclose(values[True][0], values[False][0])
    assert not torch.allclose(values[True][1], values[False][1], atol=1e-3)
