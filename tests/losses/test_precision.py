"""Float32 agrees with float64 whatever the offset and scale; half inputs and autocast are computed in float32;
nothing is NaN where softmax underflows or weights are zero."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, KL, gap_mse, soft_cross_entropy
from tests.losses.common import Loss, logits, prior_weights, value_and_gradients
from tests.official.oracles import pairwise_gap_mse, pairwise_ikl, soft_label_ce

LOSSES: dict[str, Loss] = {
    "kl": lambda m, n, w: KL()(m, n),
    "dkl": DKL(),
    "ikl": IKL(),
    "gkl": GKL(),
    "gap_mse": gap_mse,
    "soft_cross_entropy": lambda m, n, w: soft_cross_entropy(m, n),
}

# name: (offset of m, offset of n, scale of both, largest |m − n| or None)
CASES: dict[str, tuple[float, float, float, float | None]] = {
    "plain": (0, 0, 1, None),
    "both offset": (1e4, 1e4, 1, None),
    "natural offset": (1e4, 0, 1, None),
    "natural offset down": (-1e4, 0, 1, None),
    "adversarial offset": (0, 1e4, 1, None),
    "adversarial offset down": (0, -1e4, 1, None),
    "scaled": (0, 0, 100, None),
    "close": (0, 0, 1, 1e-3),
}


PARAMS = list(CASES)


@pytest.mark.parametrize("weighting", ["sample", "prior"])
@pytest.mark.parametrize("masked", [0, 3, 9])
@pytest.mark.parametrize("low", [-1e4, -1e9])
def test_a_masked_class_costs_the_others_nothing(masked: int, low: float, weighting: str) -> None:
    m, n = logits(16, 10, torch.float32)
    m[:, masked] = n[:, masked] = low
    weights = m.softmax(-1) if weighting == "sample" else prior_weights(16, 10, torch.float32)
    ours = value_and_gradients(partial(gap_mse, reduction="none"), m, n, weights)
    oracle = value_and_gradients(pairwise_gap_mse, m.double(), n.double(), weights.double())
    for got, expected in zip(ours, oracle, strict=True):
        assert relative_error(got, expected) <= 1e-6


def test_large_logits_close_together_keep_their_difference() -> None:
    m, n = logits(16, 10, torch.float32)
    m = m * 300
    n = m + 1e-3 * (2 * torch.rand_like(m) - 1)
    weights = prior_weights(16, 10, torch.float32)
    ours = value_and_gradients(partial(gap_mse, reduction="none"), m, n, weights)
    oracle = value_and_gradients(pairwise_gap_mse, m.double(), n.double(), weights.double())
    for got, expected in zip(ours, oracle, strict=True):
        assert relative_error(got, expected) <= 1e-6


def make_case(name: str, classes: int) -> tuple[Tensor, Tensor]:
    offset_m, offset_n, scale, apart = CASES[name]
    m, n = logits(16, classes, torch.float32)
    if apart is not None:
        n = m + apart * (2 * torch.rand_like(m) - 1)
    return m * scale + offset_m, n * scale + offset_n


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("weighting", ["sample", "prior"])
@pytest.mark.parametrize("case", PARAMS)
def test_float32_wmse_against_the_float64_oracle(case: str, weighting: str, classes: int) -> None:
    m, n = make_case(case, classes)
    weights = m.softmax(-1) if weighting == "sample" else prior_weights(16, classes, torch.float32)
    ours = value_and_gradients(partial(gap_mse, reduction="none"), m, n, weights)
    oracle = value_and_gradients(pairwise_gap_mse, m.double(), n.double(), weights.double())
    assert ours[0].dtype == torch.float32
    if case == "scaled" and weighting == "sample":  # one-hot weights: what is left is far below the gaps it came from
        largest = float((m.double() - n.double()).abs().max())
        for got, expected, power in zip(ours, oracle, (2, 1, 1), strict=True):
            assert float((got.double() - expected).abs().max()) <= 1e-6 * largest**power
        return
    for got, expected in zip(ours, oracle, strict=True):
        assert relative_error(got, expected) <= 1e-6


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("case", [case for case in PARAMS if case != "close"])
def test_float32_cross_entropy_and_ikl_against_the_float64_oracle(case: str, classes: int) -> None:
    m, n = make_case(case, classes)
    ce = value_and_gradients(lambda m, n, w: soft_cross_entropy(m, n, "none"), m, n, m)
    ce_oracle = value_and_gradients(lambda m, n, w: soft_label_ce(m, n), m.double(), n.double(), m)
    for got, expected in zip(ce[::2], ce_oracle[::2], strict=True):
        assert relative_error(got, expected) <= 2e-6
    assert not ce[1].any()
    weights = prior_weights(16, classes, torch.float32)
    ikl = value_and_gradients(IKL(), m, n, weights)
    oracle = partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0)
    for got, expected in zip(ikl, value_and_gradients(oracle, m.double(), n.double(), weights.double()), strict=True):
        assert relative_error(got, expected) <= 2e-6


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_float32_cross_entropy_gradient_between_close_logits_errs_by_no_more_than_rounding(classes: int) -> None:
    # softmax(n) − softmax(m) cancels, so only the absolute error can be small: a few units in the last place of p
    m, n = make_case("close", classes)
    _, _, got = value_and_gradients(lambda m, n, w: soft_cross_entropy(m, n, "none"), m, n, m)
    expected = n.double().softmax(-1) - m.double().softmax(-1)
    assert (got.double() - expected).abs().max() <= 4 * torch.finfo(torch.float32).eps
    assert expected.abs().max() > 100 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    m, n = (x.to(dtype) for x in logits(8, 10))
    weights = prior_weights(8, 10).to(dtype)
    value, grad_m, grad_n = value_and_gradients(LOSSES[name], m, n, weights)
    expected = value_and_gradients(LOSSES[name], m.float(), n.float(), weights.float())
    assert value.dtype == torch.float32
    assert torch.equal(value, expected[0])
    assert grad_m.dtype == grad_n.dtype == dtype
    tolerance = 2 * torch.finfo(dtype).eps  # each gradient is rounded once, or once a term where a loss has two
    torch.testing.assert_close(grad_m.float(), expected[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad_n.float(), expected[2], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cpu_autocast_does_not_lower_precision(name: str, dtype: torch.dtype) -> None:
    m, n = (x.to(dtype) for x in logits(8, 10))
    weights = prior_weights(8, 10, torch.float32)
    expected = value_and_gradients(LOSSES[name], m, n, weights)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_gradients(LOSSES[name], m, n, weights)
    assert got[0].dtype == torch.float32
    for ours, outside in zip(got, expected, strict=True):
        assert torch.equal(ours, outside)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gap", [1e3, 1e4])
@pytest.mark.parametrize("agree", [True, False])
def test_underflowing_softmax_gives_no_nan(name: str, gap: float, agree: bool) -> None:
    m = gap * torch.eye(5)
    n = m.clone() if agree else m.roll(1, 0)
    for weights in (prior_weights(5, 5, torch.float32), m.softmax(-1)):
        for part in value_and_gradients(LOSSES[name], m, n, weights):
            assert part.isfinite().all()
    expected = 0.0 if agree else gap
    assert soft_cross_entropy(m, n).item() == pytest.approx(expected, abs=1e-3)
    assert KL()(m, n).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["dkl", "ikl", "gkl", "gap_mse"])
def test_weights_of_zero_give_zero_wmse_and_zero_gradients(name: str) -> None:
    losses: dict[str, Loss] = {"dkl": DKL(ce_weight=0), "ikl": IKL(ce_weight=0), "gkl": GKL(ce_weight=0)}
    loss = losses.get(name, gap_mse)
    m, n = logits(4, 6, torch.float32)
    for part in value_and_gradients(loss, m, n, torch.zeros(4, 6)):
        assert torch.equal(part, torch.zeros_like(part))


def test_one_row_of_zero_weights_leaves_the_others_alone() -> None:
    m, n = logits(4, 6, torch.float32)
    weights = prior_weights(4, 6, torch.float32)
    weights[1] = 0
    rows, grad_m, grad_n = value_and_gradients(partial(gap_mse, reduction="none"), m, n, weights)
    others = [0, 2, 3]
    assert rows[1] == 0
    assert not grad_m[1].any()
    assert not grad_n[1].any()
    expected = value_and_gradients(partial(gap_mse, reduction="none"), m[others], n[others], weights[others])
    for got, alone in zip((rows, grad_m, grad_n), expected, strict=True):
        torch.testing.assert_close(got[others], alone)


@pytest.mark.parametrize("name", LOSSES)
def test_one_class_has_nothing_to_learn(name: str) -> None:
    m, n = logits(4, 1, torch.float32)
    for part in value_and_gradients(LOSSES[name], m, n, torch.ones(4, 1)):
        assert torch.equal(part, torch.zeros_like(part))
