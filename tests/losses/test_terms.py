"""The two terms of a loss add up to it, and their gradient norms are those of formulas written here, per sample."""

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, JSD, KL, PairLoss, gradient_norms, split_terms
from tests.losses.common import logits, prior_weights, value_and_gradients

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
