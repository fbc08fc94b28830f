"""The closed forms equal the pairwise B×C×C equations, values and gradients in both arguments, in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, gap_mse, soft_cross_entropy
from tests.losses.common import Loss, logits, prior_weights, value_and_gradients
from tests.official import oracles

CLASSES = [1, 2, 3, 10, 100]


def assert_same(ours: Loss, oracle: Loss, m: Tensor, n: Tensor, weights: Tensor) -> None:
    got, expected = value_and_gradients(ours, m, n, weights), value_and_gradients(oracle, m, n, weights)
    for ours_part, oracle_part in zip(got, expected, strict=True):
        torch.testing.assert_close(ours_part, oracle_part, rtol=1e-10, atol=1e-12)


def make_weights(kind: str, m: Tensor) -> Tensor:
    """Sample-wise softmax, rows of a prior, or rows that sum to anything and hold zeros."""
    if kind == "sample":
        return m.softmax(-1)
    if kind == "prior":
        return prior_weights(*m.shape)
    return 3 * torch.rand_like(m) * (torch.rand_like(m) > 0.2)


@pytest.fixture(params=CLASSES)
def pair(request: pytest.FixtureRequest, seed: int) -> tuple[Tensor, Tensor]:
    return logits(7, request.param)


@pytest.fixture(params=["sample", "prior", "unnormalised"])
def weights(request: pytest.FixtureRequest, pair: tuple[Tensor, Tensor]) -> Tensor:
    return make_weights(request.param, pair[0])


def test_gap_mse_rows(pair: tuple[Tensor, Tensor], weights: Tensor) -> None:
    assert_same(partial(gap_mse, reduction="none"), oracles.pairwise_gap_mse, *pair, weights)


def test_gap_mse_mean(pair: tuple[Tensor, Tensor], weights: Tensor) -> None:
    assert_same(gap_mse, lambda m, n, w: oracles.pairwise_gap_mse(m, n, w).mean(), *pair, weights)


def test_gap_mse_weights_each_row_of_an_upstream_gradient(pair: tuple[Tensor, Tensor], weights: Tensor) -> None:
    rows = torch.linspace(-1, 2, 7, dtype=torch.float64)
    ours = partial(gap_mse, reduction="none")
    assert_same(
        lambda m, n, w: rows * ours(m, n, w), lambda m, n, w: rows * oracles.pairwise_gap_mse(m, n, w), *pair, weights
    )


def test_soft_cross_entropy(pair: tuple[Tensor, Tensor]) -> None:
    m, n = pair
    rows = partial(soft_cross_entropy, reduction="none")
    assert_same(lambda m, n, w: rows(m, n), lambda m, n, w: oracles.soft_label_ce(m, n), m, n, m)
    assert_same(lambda m, n, w: soft_cross_entropy(m, n), lambda m, n, w: oracles.soft_label_ce(m, n).mean(), m, n, m)


@pytest.mark.parametrize(("wmse_weight", "ce_weight"), [(1.0, 1.0), (20.0, 5.0), (12.0, 0.0), (0.0, 3.0)])
def test_dkl_and_ikl(pair: tuple[Tensor, Tensor], weights: Tensor, wmse_weight: float, ce_weight: float) -> None:
    scales = {"wmse_weight": wmse_weight, "ce_weight": ce_weight}
    assert_same(DKL(**scales), partial(oracles.pairwise_dkl, **scales), *pair, weights)
    assert_same(IKL(**scales), partial(oracles.pairwise_ikl, **scales), *pair, weights)


def test_sample_weights_are_made_and_detached(pair: tuple[Tensor, Tensor]) -> None:
    m, n = pair
    scales = {"wmse_weight": 2.0, "ce_weight": 3.0}
    made = IKL(weighting="sample", **scales)
    assert_same(lambda m, n, w: made(m, n), partial(oracles.pairwise_ikl, **scales), m, n, m.softmax(-1))
    gkl = GKL(weighting="sample", gamma=0.3, **scales)
    oracle = partial(oracles.pairwise_gkl, gamma=0.3, **scales)
    assert_same(lambda m, n, w: gkl(m, n), oracle, m, n, m.softmax(-1))


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 1.0, 2.0])
def test_gkl(pair: tuple[Tensor, Tensor], weights: Tensor, gamma: float) -> None:
    scales = {"wmse_weight": 20.0, "ce_weight": 4.0, "gamma": gamma}
    assert_same(GKL(**scales), partial(oracles.pairwise_gkl, **scales), *pair, weights)


def test_gkl_at_one_is_ikl_and_at_zero_is_uniform(pair: tuple[Tensor, Tensor]) -> None:
    m, n = pair
    prior = prior_weights(*m.shape)
    assert_same(GKL(gamma=1, ce_weight=5), IKL(), m, n, prior)
    uniform = torch.full_like(m, 1 / m.shape[1])
    assert_same(GKL(gamma=0, ce_weight=5), lambda m, n, w: IKL()(m, n, uniform), m, n, prior)


def test_gkl_between_is_neither(seed: int) -> None:
    m, n = logits(7, 10)
    prior = prior_weights(7, 10)
    values = [GKL(gamma=gamma)(m, n, prior).item() for gamma in (0.0, 0.4, 1.0)]
    assert len({round(value, 6) for value in values}) == 3


def test_swapping_the_two_weights_is_seen() -> None:
    m, n = logits(7, 10)
    prior = prior_weights(7, 10)
    assert abs(IKL(wmse_weight=20, ce_weight=5)(m, n, prior) - IKL(wmse_weight=5, ce_weight=20)(m, n, prior)) > 1


def test_gradcheck() -> None:
    m, n = (x.requires_grad_() for x in logits(3, 5, scale=1.0))
    w = prior_weights(3, 5)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(lambda m, n, r=reduction: gap_mse(m, n, w, r), (m, n))
    target = m.detach().clone()  # IKL detaches the soft label, which finite differences of m would see
    assert torch.autograd.gradcheck(lambda n: IKL()(target, n, w), (n,))
    assert torch.autograd.gradcheck(lambda m: IKL(ce_weight=0)(m, n, w), (m,))
    assert torch.autograd.gradcheck(lambda n: GKL()(target, n, w), (n,))
