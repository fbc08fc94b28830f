"""IKL and GKL with temperatures equal the official distillers' pairwise lines; the drop-ins pass theirs on."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import GKL, IKL, GKLLoss, IKLLoss
from tests.losses.common import Loss, logits, prior_weights, value_and_gradients
from tests.official.oracles import pair_weights, pairwise_gap_mse, pairwise_gaps, soft_label_ce

SCALES = {"wmse_weight": 8.0, "ce_weight": 3.0}


def official_ikl(t: Tensor, s: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """The v1 distiller: wMSE on the logits, cross-entropy at temperature without T²."""
    return 8.0 * pairwise_gap_mse(t, s, weights).mean() + 3.0 * soft_label_ce(t / temperature, s / temperature).mean()


def official_gkl(t: Tensor, s: Tensor, weights: Tensor, temperature: float, gamma: float) -> Tensor:
    """The v2 distiller: weights to the power gamma, normalised over the batch."""
    pairs = pair_weights(weights.pow(gamma))
    wmse = 0.25 * ((pairwise_gaps(t) - pairwise_gaps(s)).square() * pairs).sum() / pairs.sum()
    return 8.0 * wmse + 3.0 * soft_label_ce(t / temperature, s / temperature).mean()


def assert_same(ours: Loss, oracle: Loss, t: Tensor, s: Tensor, weights: Tensor) -> None:
    got, expected = value_and_gradients(ours, t, s, weights), value_and_gradients(oracle, t, s, weights)
    for ours_part, oracle_part in zip(got, expected, strict=True):
        torch.testing.assert_close(ours_part, oracle_part, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("classes", [1, 2, 10, 100])
def test_class_weights(temperature: float, classes: int) -> None:
    t, s = logits(7, classes)
    prior = prior_weights(7, classes)
    assert_same(IKL(ce_temperature=temperature, **SCALES), partial(official_ikl, temperature=temperature), t, s, prior)
    gkl = GKL(gamma=0.05, ce_temperature=temperature, **SCALES)
    assert_same(gkl, partial(official_gkl, temperature=temperature, gamma=0.05), t, s, prior)


@pytest.mark.parametrize(("temperature", "sample_temperature"), [(4.0, 100.0), (4.0, 4.0), (1.0, 3.0), (4.0, 1.0)])
def test_sample_weights_are_the_teachers_softened_predictions(temperature: float, sample_temperature: float) -> None:
    t, s = logits(7, 10)
    weights = (t / sample_temperature).softmax(-1)
    fields = {"ce_temperature": temperature, "sample_temperature": sample_temperature, "weighting": "sample", **SCALES}
    assert_same(lambda t, s, w: IKL(**fields)(t, s), partial(official_ikl, temperature=temperature), t, s, weights)
    gkl = GKL(gamma=0.3, **fields)
    assert_same(lambda t, s, w: gkl(t, s), partial(official_gkl, temperature=temperature, gamma=0.3), t, s, weights)


def test_sample_temperature_leaves_class_weights_alone() -> None:
    t, s = logits(7, 10)
    prior = prior_weights(7, 10)
    assert torch.equal(IKL(sample_temperature=100)(t, s, prior), IKL()(t, s, prior))
    assert torch.equal(GKL(sample_temperature=100)(t, s, prior), GKL()(t, s, prior))


def test_weights_of_zero_for_the_cross_entropy_leave_the_wmse() -> None:
    t, s = logits(7, 10)
    prior = prior_weights(7, 10)
    ours = IKL(wmse_weight=8.0, ce_weight=0, ce_temperature=4)
    assert_same(ours, lambda t, s, w: 8.0 * pairwise_gap_mse(t, s, w).mean(), t, s, prior)


@pytest.mark.parametrize("kind", ["ikl", "gkl"])
@pytest.mark.parametrize(("offset_t", "offset_s", "scale"), [(1e4, 1e4, 1), (1e4, 0, 1), (0, -1e4, 1), (0, 0, 100)])
@pytest.mark.parametrize("temperature", [3.0, 4.0])
def test_float32_against_the_float64_oracle(
    kind: str, offset_t: float, offset_s: float, scale: float, temperature: float
) -> None:
    t, s = logits(16, 10, torch.float32)
    t, s = scale * t + offset_t, scale * s + offset_s
    weights = (t.double() / 100).softmax(-1)
    fields = {"ce_temperature": temperature, "sample_temperature": 100, "weighting": "sample", **SCALES}
    ours = IKL(**fields) if kind == "ikl" else GKL(gamma=0.3, **fields)
    oracle = (
        partial(official_ikl, temperature=temperature)
        if kind == "ikl"
        else partial(official_gkl, temperature=temperature, gamma=0.3)
    )
    got = value_and_gradients(lambda t, s, w: ours(t, s), t, s, weights)
    expected = value_and_gradients(oracle, t.double(), s.double(), weights)
    for mine, exact in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        assert (mine.double() - exact).norm() <= 2e-6 * exact.norm()


@pytest.mark.parametrize("loss", [IKL(ce_temperature=3), GKL(ce_temperature=3)], ids=["ikl", "gkl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_inputs_and_autocast_are_computed_in_float32(loss: IKL | GKL, dtype: torch.dtype) -> None:
    t, s = (x.to(dtype) for x in logits(8, 10))
    weights = prior_weights(8, 10, torch.float32)
    expected = value_and_gradients(loss, t.float(), s.float(), weights)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_gradients(loss, t, s, weights)
    assert got[0].dtype == torch.float32
    assert torch.equal(got[0], expected[0])
    tolerance = 2 * torch.finfo(dtype).eps  # a gradient is rounded once a term
    torch.testing.assert_close(got[2].float(), expected[2], rtol=tolerance, atol=tolerance)


def test_a_teacher_under_no_grad_leaves_the_students_gradient() -> None:
    t, s = logits(7, 10)
    weights = prior_weights(7, 10)
    student = s.clone().requires_grad_()
    IKL(ce_temperature=4, **SCALES)(t, student, weights).backward()
    expected = value_and_gradients(partial(official_ikl, temperature=4.0), t, s, weights)
    torch.testing.assert_close(student.grad, expected[2], rtol=1e-10, atol=1e-12)
    assert t.grad is None


def test_drop_ins_soften_their_cross_entropy() -> None:
    t, s = logits(7, 10, torch.float32)
    target, uniform = torch.arange(7), torch.full((7, 10), 0.1)
    ikl = IKLLoss(10, ce_temperature=4, **SCALES)
    gkl = GKLLoss(10, gamma=0.3, ce_temperature=4, **SCALES)
    torch.testing.assert_close(ikl(t, s, target), official_ikl(t, s, uniform, temperature=4.0))
    torch.testing.assert_close(gkl(t, s, target), official_gkl(t, s, uniform, temperature=4.0, gamma=0.3))
    assert (ikl.prior_temperature, gkl.prior_temperature) == (4.0, 1.0)
