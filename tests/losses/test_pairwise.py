"""The closed forms equal the pairwise B×C×C equations, values and gradients in both arguments, in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, gap_mse, soft_cross_entropy
from tests.losses.common import Loss, assert_same, logits, prior_weights
from tests.official import oracles

EACH_SIZE = pytest.mark.parametrize("classes", [1, 2, 3, 10, 100])


def cases(classes: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits with sample-wise weights, rows of a prior, and rows of any sum with zeros among them."""
    m, n = logits(7, classes)
    anything = 3 * torch.rand_like(m) * (torch.rand_like(m) > 0.2)
    return [(m, n, weights) for weights in (m.softmax(-1), prior_weights(7, classes), anything)]


@EACH_SIZE
def test_gap_mse(classes: int) -> None:
    rows, upstream = partial(gap_mse, reduction="none"), torch.linspace(-1, 2, 7, dtype=torch.float64)
    pairwise = oracles.pairwise_gap_mse
    for case in cases(classes):
        assert_same(rows, pairwise, *case)
        assert_same(gap_mse, lambda m, n, w: pairwise(m, n, w).mean(), *case)
        assert_same(lambda m, n, w: upstream * rows(m, n, w), lambda m, n, w: upstream * pairwise(m, n, w), *case)


@EACH_SIZE
def test_soft_cross_entropy(classes: int) -> None:
    m, n = logits(7, classes)
    rows = partial(soft_cross_entropy, reduction="none")
    assert_same(lambda m, n, w: rows(m, n), lambda m, n, w: oracles.soft_label_ce(m, n), m, n, m)
    assert_same(lambda m, n, w: soft_cross_entropy(m, n), lambda m, n, w: oracles.soft_label_ce(m, n).mean(), m, n, m)


@EACH_SIZE
def test_dkl_ikl_and_gkl(classes: int) -> None:
    for case in cases(classes):
        for wmse_weight, ce_weight in [(1.0, 1.0), (20.0, 5.0), (12.0, 0.0), (0.0, 3.0)]:
            scales = {"wmse_weight": wmse_weight, "ce_weight": ce_weight}
            assert_same(DKL(**scales), partial(oracles.pairwise_dkl, **scales), *case)
            assert_same(IKL(**scales), partial(oracles.pairwise_ikl, **scales), *case)
        for gamma in [0.0, 0.2, 0.5, 1.0, 2.0]:
            scales = {"wmse_weight": 20.0, "ce_weight": 4.0, "gamma": gamma}
            assert_same(GKL(**scales), partial(oracles.pairwise_gkl, **scales), *case)


@EACH_SIZE
def test_sample_weights_are_made_and_detached(classes: int) -> None:
    m, n = logits(7, classes)
    scales = {"wmse_weight": 2.0, "ce_weight": 3.0}
    ikl, gkl = IKL(weighting="sample", **scales), GKL(weighting="sample", gamma=0.3, **scales)
    oracle: Loss = partial(oracles.pairwise_gkl, gamma=0.3, **scales)
    assert_same(lambda m, n, w: ikl(m, n), partial(oracles.pairwise_ikl, **scales), m, n, m.softmax(-1))
    assert_same(lambda m, n, w: gkl(m, n), oracle, m, n, m.softmax(-1))


@EACH_SIZE
def test_gkl_at_one_is_ikl_and_at_zero_is_uniform(classes: int) -> None:
    m, n = logits(7, classes)
    prior = prior_weights(7, classes)
    assert_same(GKL(gamma=1, ce_weight=5), IKL(), m, n, prior)
    uniform = torch.full_like(m, 1 / classes)
    assert_same(GKL(gamma=0, ce_weight=5), lambda m, n, w: IKL()(m, n, weights=uniform), m, n, prior)


@pytest.mark.parametrize("weighting", ["class", "sample"])
def test_parts_of_a_batch_with_the_sum_of_their_normalizers_are_gkl_of_the_batch(weighting: str) -> None:
    m, n = logits(7, 10)
    loss = GKL(gamma=0.4, ce_weight=0.0, weighting=weighting)
    given = {"weights": prior_weights(7, 10)} if weighting == "class" else {}
    whole = loss(m, n, **given)
    parts = [(m[part], n[part], {key: value[part] for key, value in given.items()}) for part in (slice(3), slice(3, 7))]
    total = sum(loss.normalizer(a, **kw) for a, _, kw in parts)
    torch.testing.assert_close(sum(loss(a, b, normalizer=total, **kw) for a, b, kw in parts), whole)
    assert abs(sum(loss(a, b, **kw) for a, b, kw in parts) / 2 - whole) > 1e-6 * whole


def test_settings_change_the_value() -> None:
    m, n = logits(7, 10)
    prior = prior_weights(7, 10)
    values = [GKL(gamma=gamma)(m, n, weights=prior).item() for gamma in (0.0, 0.4, 1.0)]
    assert len({round(value, 6) for value in values}) == 3
    right, swapped = IKL(wmse_weight=20, ce_weight=5), IKL(wmse_weight=5, ce_weight=20)
    assert abs(right(m, n, weights=prior) - swapped(m, n, weights=prior)) > 1


def test_gradcheck() -> None:
    m, n = (x.requires_grad_() for x in logits(3, 5, scale=1.0))
    w = prior_weights(3, 5)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(lambda m, n, r=reduction: gap_mse(m, n, w, r), (m, n))
    target = m.detach().clone()  # IKL detaches the soft label, which finite differences of m would see
    assert torch.autograd.gradcheck(lambda n: IKL()(target, n, weights=w), (n,))
    assert torch.autograd.gradcheck(lambda m: IKL(ce_weight=0)(m, n, weights=w), (m,))
    assert torch.autograd.gradcheck(lambda n: GKL()(target, n, weights=w), (n,))
