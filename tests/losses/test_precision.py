"""Float32 agrees with float64 at any offset and scale; half-precision inputs and autocast are computed in float32;
nothing is NaN if a softmax underflows or weights are zero."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, KL, gap_mse, soft_cross_entropy
from tests.losses.common import Loss, logits, prior_weights, value_and_gradients
from tests.official.oracles import pairwise_gap_mse, pairwise_ikl, soft_label_ce

LOSSES: dict[str, Loss] = {
    "kl": KL(),
    "dkl": DKL(),
    "ikl": IKL(),
    "gkl": GKL(),
    "gap_mse": gap_mse,
    "soft_cross_entropy": lambda m, n, w: soft_cross_entropy(m, n),
}
EACH = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)

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
    "large and close": (0, 0, 300, 1e-3 / 300),
}
EACH_CASE = pytest.mark.parametrize("case", CASES)
WMSE = partial(gap_mse, reduction="none")
SIZES = (2, 10, 100)


def make_case(name: str, classes: int) -> tuple[Tensor, Tensor]:
    offset_m, offset_n, scale, apart = CASES[name]
    m, n = logits(16, classes, torch.float32)
    m = m * scale
    n = n * scale if apart is None else m + apart * scale * (2 * torch.rand_like(m) - 1)
    return m + offset_m, n + offset_n


def in_float64(loss: Loss, m: Tensor, n: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return value_and_gradients(loss, m.double(), n.double(), weights.double())


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@EACH_CASE
def test_float32_wmse_against_the_float64_oracle(case: str) -> None:
    for classes in SIZES:
        m, n = make_case(case, classes)
        for weights in (m.softmax(-1), prior_weights(16, classes, torch.float32)):
            ours, oracle = value_and_gradients(WMSE, m, n, weights), in_float64(pairwise_gap_mse, m, n, weights)
            assert ours[0].dtype == torch.float32
            # With one-hot weights the result is far smaller than the gaps it is computed from.
            one_hot = CASES[case][2] > 1 and weights.amax() > 0.999
            largest = float((m.double() - n.double()).abs().max())
            for got, expected, power in zip(ours, oracle, (2, 1, 1), strict=True):
                if one_hot:
                    assert float((got.double() - expected).abs().max()) <= 1e-6 * largest**power
                else:
                    assert relative_error(got, expected) <= 1e-6, (classes, power)


@EACH_CASE
def test_float32_cross_entropy_and_ikl_against_the_float64_oracle(case: str) -> None:
    for classes in SIZES:
        m, n = make_case(case, classes)
        if CASES[case][3] is not None:
            # softmax(n) − softmax(m) cancels, so only the absolute error is small: a few units in p's last place
            _, _, got = value_and_gradients(lambda m, n, w: soft_cross_entropy(m, n, "none"), m, n, m)
            expected = n.double().softmax(-1) - m.double().softmax(-1)
            assert (got.double() - expected).abs().max() <= 4 * torch.finfo(torch.float32).eps
            assert case != "close" or expected.abs().max() > 100 * torch.finfo(torch.float32).eps
            continue
        ce = value_and_gradients(lambda m, n, w: soft_cross_entropy(m, n, "none"), m, n, m)
        ce_oracle = in_float64(lambda m, n, w: soft_label_ce(m, n), m, n, m)
        for got, exact in zip(ce[::2], ce_oracle[::2], strict=True):
            assert relative_error(got, exact) <= 2e-6, classes
        assert not ce[1].any()
        weights = prior_weights(16, classes, torch.float32)
        oracle = in_float64(partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0), m, n, weights)
        for got, exact in zip(value_and_gradients(IKL(), m, n, weights), oracle, strict=True):
            assert relative_error(got, exact) <= 2e-6, classes


def test_a_masked_class_costs_the_others_no_precision() -> None:
    for masked in (0, 3, 9):
        for low in (-1e4, -1e9):
            m, n = logits(16, 10, torch.float32)
            m[:, masked] = n[:, masked] = low
            for weights in (m.softmax(-1), prior_weights(16, 10, torch.float32)):
                ours, oracle = value_and_gradients(WMSE, m, n, weights), in_float64(pairwise_gap_mse, m, n, weights)
                for got, expected in zip(ours, oracle, strict=True):
                    assert relative_error(got, expected) <= 1e-6, (masked, low)


@EACH
def test_half_inputs_and_autocast_are_computed_in_float32(loss: Loss) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        m, n = (x.to(dtype) for x in logits(8, 10))
        weights = prior_weights(8, 10).to(dtype)
        value, grad_m, grad_n = plain = value_and_gradients(loss, m, n, weights)
        expected = value_and_gradients(loss, m.float(), n.float(), weights.float())
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[0])
        assert grad_m.dtype == grad_n.dtype == dtype
        tolerance = 2 * torch.finfo(dtype).eps  # each gradient is rounded once, or once per term of the loss
        torch.testing.assert_close(grad_m.float(), expected[1], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad_n.float(), expected[2], rtol=tolerance, atol=tolerance)
        with torch.autocast("cpu", torch.bfloat16):
            cast = value_and_gradients(loss, m, n, weights)
        assert all(map(torch.equal, cast, plain))


@EACH
def test_an_underflowing_softmax_gives_no_nan(loss: Loss) -> None:
    for gap in (1e3, 1e4):
        m = gap * torch.eye(5)
        for n, expected in ((m.clone(), 0.0), (m.roll(1, 0), gap)):
            for weights in (prior_weights(5, 5, torch.float32), m.softmax(-1)):
                for part in value_and_gradients(loss, m, n, weights):
                    assert part.isfinite().all()
            assert soft_cross_entropy(m, n).item() == pytest.approx(expected, abs=1e-3)
            assert KL()(m, n).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("loss", [DKL(ce_weight=0), IKL(ce_weight=0), GKL(ce_weight=0), gap_mse])
def test_weights_of_zero_give_zero_wmse_and_zero_gradients(loss: Loss) -> None:
    m, n = logits(4, 6, torch.float32)
    for part in value_and_gradients(loss, m, n, torch.zeros(4, 6)):
        assert torch.equal(part, torch.zeros_like(part))


def test_a_row_of_zero_weights_does_not_change_the_others() -> None:
    m, n = logits(4, 6, torch.float32)
    weights = prior_weights(4, 6, torch.float32)
    weights[1] = 0
    rows, grad_m, grad_n = value_and_gradients(WMSE, m, n, weights)
    others = [0, 2, 3]
    assert rows[1] == 0
    assert not grad_m[1].any()
    assert not grad_n[1].any()
    expected = value_and_gradients(WMSE, m[others], n[others], weights[others])
    for got, alone in zip((rows, grad_m, grad_n), expected, strict=True):
        torch.testing.assert_close(got[others], alone)


@EACH
def test_with_one_class_loss_and_gradients_are_zero(loss: Loss) -> None:
    m, n = logits(4, 1, torch.float32)
    for part in value_and_gradients(loss, m, n, torch.ones(4, 1)):
        assert torch.equal(part, torch.zeros_like(part))
