"""IKL and GKL with temperatures equal the official distillers' pairwise lines; the drop-ins pass theirs on."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import GKL, IKL, GKLLoss, IKLLoss
from tests.losses.common import Loss, assert_same, logits, prior_weights, value_and_gradients
from tests.official.oracles import pair_weights, pairwise_gap_mse, pairwise_gaps, soft_label_ce

SCALES = {"wmse_weight": 8.0, "ce_weight": 3.0}


def official_ikl(t: Tensor, s: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """The v1 distiller: wMSE on the logits, cross-entropy at temperature without T²."""
    return 8.0 * pairwise_gap_mse(t, s, weights).mean() + 3.0 * soft_label_ce(t / temperature, s / temperature).mean()


def official_gkl(t: Tensor, s: Tensor, weights: Tensor, temperature: float, gamma: float = 0.3) -> Tensor:
    """The v2 distiller: weights to the power gamma, normalized over the batch."""
    pairs = pair_weights(weights.pow(gamma))
    wmse = 0.25 * ((pairwise_gaps(t) - pairwise_gaps(s)).square() * pairs).sum() / pairs.sum()
    return 8.0 * wmse + 3.0 * soft_label_ce(t / temperature, s / temperature).mean()


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "ikl": (partial(IKL, **SCALES), official_ikl),
    "gkl": (partial(GKL, gamma=0.3, **SCALES), official_gkl),
}
EACH = pytest.mark.parametrize(("make", "official"), LOSSES.values(), ids=LOSSES)


@EACH
def test_class_weights(make: Loss, official: Loss) -> None:
    for classes in (1, 2, 10, 100):
        t, s = logits(7, classes)
        for temperature in (0.5, 1.0, 4.0):
            oracle = partial(official, temperature=temperature)
            assert_same(make(ce_temperature=temperature), oracle, t, s, prior_weights(7, classes))


@EACH
def test_sample_weights_are_the_teachers_softened_predictions(make: Loss, official: Loss) -> None:
    t, s = logits(7, 10)
    for temperature, sample_temperature in [(4.0, 100.0), (4.0, 4.0), (1.0, 3.0), (4.0, 1.0)]:
        loss = make(ce_temperature=temperature, sample_temperature=sample_temperature, weighting="sample")
        weights, oracle = (t / sample_temperature).softmax(-1), partial(official, temperature=temperature)
        assert_same(lambda t, s, w, loss=loss: loss(t, s), oracle, t, s, weights)


@EACH
def test_sample_temperature_does_not_change_class_weights(make: Loss, official: Loss) -> None:
    t, s = logits(7, 10)
    prior = prior_weights(7, 10)
    assert torch.equal(make(sample_temperature=100)(t, s, weights=prior), make()(t, s, weights=prior))


def test_without_cross_entropy_the_wmse_remains() -> None:
    t, s = logits(7, 10)
    ours = IKL(wmse_weight=8.0, ce_weight=0, ce_temperature=4)
    assert_same(ours, lambda t, s, w: 8.0 * pairwise_gap_mse(t, s, w).mean(), t, s, prior_weights(7, 10))


@EACH
def test_float32_against_the_float64_oracle(make: Loss, official: Loss) -> None:
    for offset_t, offset_s, scale in [(1e4, 1e4, 1), (1e4, 0, 1), (0, -1e4, 1), (0, 0, 100)]:
        for temperature in (3.0, 4.0):
            t, s = logits(16, 10, torch.float32)
            t, s = scale * t + offset_t, scale * s + offset_s
            weights = (t.double() / 100).softmax(-1)
            ours = make(ce_temperature=temperature, sample_temperature=100, weighting="sample")
            got = value_and_gradients(lambda t, s, w, ours=ours: ours(t, s), t, s, weights)
            oracle = partial(official, temperature=temperature)
            expected = value_and_gradients(oracle, t.double(), s.double(), weights)
            for mine, exact in zip(got, expected, strict=True):
                assert mine.dtype == torch.float32
                assert (mine.double() - exact).norm() <= 2e-6 * exact.norm(), (offset_t, offset_s, scale, temperature)


@EACH
def test_half_inputs_and_autocast_are_computed_in_float32(make: Loss, official: Loss) -> None:
    loss, weights = make(ce_temperature=3), prior_weights(8, 10, torch.float32)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        t, s = (x.to(dtype) for x in logits(8, 10))
        expected = value_and_gradients(loss, t.float(), s.float(), weights)
        with torch.autocast("cpu", torch.bfloat16):
            got = value_and_gradients(loss, t, s, weights)
        assert got[0].dtype == torch.float32
        assert torch.equal(got[0], expected[0])
        tolerance = 2 * torch.finfo(dtype).eps  # a gradient is rounded once per term
        torch.testing.assert_close(got[2].float(), expected[2], rtol=tolerance, atol=tolerance)


def test_drop_ins_soften_their_cross_entropy() -> None:
    t, s = logits(7, 10, torch.float32)
    target, uniform = torch.arange(7), torch.full((7, 10), 0.1)
    ikl = IKLLoss(10, ce_temperature=4, **SCALES)
    gkl = GKLLoss(10, gamma=0.3, ce_temperature=4, **SCALES)
    torch.testing.assert_close(ikl(t, s, target), official_ikl(t, s, uniform, temperature=4.0))
    torch.testing.assert_close(gkl(t, s, target), official_gkl(t, s, uniform, temperature=4.0))
    assert (ikl.prior_temperature, gkl.prior_temperature) == (4.0, 1.0)
