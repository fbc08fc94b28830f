"""DKL at weights (1, 1) has the gradients of KL, as the paper proves; the terms of a loss add up to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, JSD, KL, PairLoss, gradient_norms, split_terms
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
    torch.testing.assert_close(dkl_m, kl_m, rtol=0, atol=1e-13)
    torch.testing.assert_close(dkl_n, kl_n, rtol=0, atol=1e-13)


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


ROWS, CLASSES = 5, 7


def norms_by_hand(m: Tensor, n: Tensor, w: Tensor, wmse: float, ce: float, both: bool) -> dict[str, list[float]]:
    """One sample at a time: the wMSE pulls the gaps of ``m``, and of ``n`` too if ``both``; the cross-entropy ``n``."""
    found: dict[str, list[float]] = {"wmse": [], "ce": []}
    for a, b, weights in zip(m, n, w, strict=True):
        gaps = (a[:, None] - a) - (b[:, None] - b)
        pull = wmse * torch.stack([(weights[k] * weights * gaps[k]).sum() for k in range(CLASSES)]).norm()
        found["wmse"].append(((2**0.5 if both else 1) * pull).item())
        found["ce"].append(ce * (a.softmax(0) - b.softmax(0)).norm().item())
    return found


@pytest.mark.parametrize("loss", [KL(weight=3.0), DKL(wmse_weight=3.0, ce_weight=3.0), IKL(wmse_weight=4.0)])
def test_norms_are_those_of_the_formulas(loss: PairLoss) -> None:
    m, n = logits(ROWS, CLASSES)
    prior = prior_weights(ROWS, CLASSES)
    if isinstance(loss, IKL):
        got = gradient_norms(loss, m, n, weights=prior)
        expected = norms_by_hand(m, n, prior, 4.0, 5.0, both=True)
    else:
        got = gradient_norms(loss, m, n)
        expected = norms_by_hand(m, n, m.softmax(-1), 3.0, 3.0, both=False)
    for name, values in got.items():
        assert values.tolist() == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.parametrize("loss", [KL(), DKL(), IKL(), GKL()])
def test_the_terms_add_up_to_the_gradients_of_the_loss(loss: PairLoss) -> None:
    m, n = logits(ROWS, CLASSES)
    weights = prior_weights(ROWS, CLASSES) if isinstance(loss, IKL | GKL) else m.softmax(-1)
    whole = value_and_gradients(loss, m, n, weights)[1:]
    parts = [value_and_gradients(term, m, n, weights)[1:] for term in split_terms(loss).values()]
    for got, *terms in zip(whole, *parts, strict=True):
        torch.testing.assert_close(got, sum(terms), rtol=1e-9, atol=1e-12)


def test_other_losses_have_no_such_terms() -> None:
    with pytest.raises(TypeError, match="JSD has no terms to split: choose KL, DKL, IKL or GKL"):
        split_terms(JSD())
