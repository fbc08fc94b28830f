"""DKL at weights (1, 1) has the gradients of KL in both arguments, as the paper proves, and only for those weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dkl.losses import DKL, IKL, KL
from tests.losses.common import logits, prior_weights, value_and_gradients
from tests.official.oracles import textbook_kl

FINITE = st.floats(-20, 20, allow_nan=False, width=64)


@st.composite
def logit_pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 12)))
    m, n = (draw(arrays("float64", shape, elements=FINITE)) for _ in range(2))
    return torch.from_numpy(m.copy()), torch.from_numpy(n.copy())


def kl(m: Tensor, n: Tensor, weights: Tensor) -> Tensor:
    return textbook_kl(m, n)


@given(logit_pairs())
def test_dkl_has_the_gradients_of_kl(pair: tuple[Tensor, Tensor]) -> None:
    m, n = pair
    weights = m.softmax(-1)
    _, dkl_m, dkl_n = value_and_gradients(lambda m, n, w: DKL()(m, n), m, n, weights)
    _, kl_m, kl_n = value_and_gradients(kl, m, n, weights)
    torch.testing.assert_close(dkl_m, kl_m, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(dkl_n, kl_n, rtol=1e-9, atol=1e-13)


@given(logit_pairs(), st.floats(0, 50), st.floats(0, 50))
def test_each_weight_scales_the_gradient_of_one_argument(pair: tuple[Tensor, Tensor], wmse: float, ce: float) -> None:
    m, n = pair
    loss = DKL(wmse_weight=wmse, ce_weight=ce)
    _, dkl_m, dkl_n = value_and_gradients(lambda m, n, w: loss(m, n), m, n, m)
    _, kl_m, kl_n = value_and_gradients(kl, m, n, m)
    torch.testing.assert_close(dkl_m, wmse * kl_m, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dkl_n, ce * kl_n, rtol=1e-9, atol=1e-11)


@given(logit_pairs())
def test_kl_is_the_textbook_kl(pair: tuple[Tensor, Tensor]) -> None:
    m, n = pair
    ours = value_and_gradients(lambda m, n, w: KL(weight=2.5)(m, n), m, n, m)
    theirs = value_and_gradients(lambda m, n, w: 2.5 * textbook_kl(m, n), m, n, m)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_the_values_differ_though_the_gradients_agree() -> None:
    m, n = logits(4, 10)
    assert abs(DKL()(m, n) - textbook_kl(m, n)) > 0.1


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_other_weights_than_the_natural_softmax_break_the_theorem(classes: int) -> None:
    m, n = logits(8, classes)
    weights = prior_weights(8, classes)
    _, dkl_m, _ = value_and_gradients(DKL(weighting="class"), m, n, weights)
    _, kl_m, _ = value_and_gradients(kl, m, n, weights)
    assert (dkl_m - kl_m).norm() > 0.1 * kl_m.norm()


def test_ikl_adds_a_gradient_to_the_adversarial_logits() -> None:
    m, n = logits(8, 10)
    loss = IKL(wmse_weight=1, ce_weight=1, weighting="sample")
    _, ikl_m, ikl_n = value_and_gradients(lambda m, n, w: loss(m, n), m, n, m)
    _, kl_m, kl_n = value_and_gradients(kl, m, n, m)
    torch.testing.assert_close(ikl_m, kl_m, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(ikl_n, kl_n - kl_m, rtol=1e-9, atol=1e-13)  # broken asymmetry: wMSE reaches n, reversed
    assert kl_m.norm() > 0.1
