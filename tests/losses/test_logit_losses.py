"""LS, TTM, WTTM, ABKD, NormKD and WKD-L equal their official codes, transcribed in float64 numpy, sample by sample."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from dkl.losses import (
    ABKD,
    DIST,
    DKD,
    KD,
    KL,
    TTM,
    WKD,
    WTTM,
    BaseLoss,
    NormKD,
    RowLoss,
    classifier_distances,
    feature_distances,
    split_terms,
    standardized,
)
from tests.losses.common import EACH_LOSS, Loss, call, class_distances, logits, third_argument, value_and_gradients
from tests.official import distillation_losses as oracles

B, C = 6, 5
LABELS = [0, 3, 4, 1, 1, 2]
DISTANCES = class_distances(C).numpy()
POWERS = [(0.8, 0.3), (1.0, 1.0), (2.0, 0.5), (1.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.0, 0.6), (0.0, 0.0)]

Oracle = Callable[[oracles.Array, oracles.Array], float]


def wkd(temperature: float, iterations: int = 10, least: float = 0.0) -> Oracle:
    settings = {"weight": 30.0, "temperature": temperature, "sharpness": 2.0, "smoothing": 0.1}
    return partial(oracles.wkd, labels=LABELS, distances=DISTANCES, iterations=iterations, least=least, **settings)


def ours(temperature: float, iterations: int = 10) -> WKD:
    return WKD(weight=30, logit_temperature=temperature, sharpness=2, smoothing=0.1, iterations=iterations)


CASES: dict[str, tuple[Loss, Oracle]] = {
    "kd+ls": (
        KD(weight=9, logit_temperature=2, standardize=True),
        lambda t, s: 9 * oracles.kd(oracles.standardized(t), oracles.standardized(s), 2.0),
    ),
    "dkd+ls": (
        DKD(alpha=9, beta=18, logit_temperature=3, standardize=True),
        lambda t, s: oracles.dkd(oracles.standardized(t), oracles.standardized(s), LABELS, 3.0, 9.0, 18.0),
    ),
    "dist+ls": (
        DIST(logit_temperature=3, standardize=True),
        lambda t, s: oracles.dist(oracles.standardized(t), oracles.standardized(s), 3.0, 1.0, 1.0),
    ),
    "ttm": (TTM(weight=3, power=0.1), partial(oracles.ttm, weight=3, power=0.1, by_sum=False)),
    "wttm": (WTTM(weight=3, power=0.4), partial(oracles.ttm, weight=3, power=0.4, by_sum=True)),
    "normkd": (NormKD(weight=0.9, logit_temperature=1.5), partial(oracles.normkd, weight=0.9, temperature=1.5)),
    "wkd": (ours(4.0), wkd(4.0)),
    **{
        f"abkd-{alpha:g}-{beta:g}": (
            ABKD(weight=2, alpha=alpha, beta=beta, logit_temperature=3),
            partial(oracles.abkd, weight=2, alpha=alpha, beta=beta, temperature=3.0),
        )
        for alpha, beta in POWERS
    },
}
EACH = pytest.mark.parametrize(("loss", "oracle"), CASES.values(), ids=CASES)


def outcome(loss: Loss, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and gradients with ``LABELS``."""
    return value_and_gradients(loss, t, s, torch.tensor(LABELS))


@EACH
def test_values_and_student_gradients_are_the_official_codes(loss: Loss, oracle: Oracle) -> None:
    t, s = logits(B, C, scale=2.0)
    value, of_teacher, gradient = outcome(loss, t, s)
    tolerance = 1e-6 if isinstance(loss, NormKD) else 1e-10  # the official NormKD adds nothing to its deviations
    assert value.item() == pytest.approx(oracle(t.numpy(), s.numpy()), rel=tolerance)
    expected = oracles.slope(lambda x: oracle(t.numpy(), x), s.numpy())
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=max(tolerance, 1e-7), atol=1e-8)
    assert np.abs(expected).max() > 1e-3
    assert not of_teacher.any()


@EACH
def test_float32_is_as_good_as_float64_at_any_offset_and_scale(loss: Loss, oracle: Oracle) -> None:
    for teacher_offset, student_offset, scale in [(0, 0, 2), (1e4, 1e4, 2), (-1e4, 0, 2), (0, 1e4, 2), (0, 0, 20)]:
        t, s = logits(B, C, torch.float32, scale=scale)
        t, s = t + teacher_offset, s + student_offset
        value, _, gradient = outcome(loss, t, s)
        assert value.dtype == gradient.dtype == torch.float32
        exact_t, exact_s = t.double() - teacher_offset, s.double() - student_offset
        exact, _, expected = outcome(loss, exact_t, exact_s)
        assert value.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-6)
        assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-7


@EACH
def test_half_inputs_and_autocast_are_computed_in_float32(loss: Loss, oracle: Oracle) -> None:
    t, s = (x.to(torch.bfloat16) for x in logits(B, C))
    value, _, gradient = outcome(loss, t.float(), s.float())

    def cast(t: Tensor, s: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):  # not backward, as torch advises
            return call(loss, t, s, labels)

    for got in (outcome(cast, t, s), outcome(loss, t, s)):
        assert got[0].dtype == torch.float32
        assert torch.equal(got[0], value)
        assert torch.equal(got[2], gradient.to(torch.bfloat16))


@EACH
def test_gradcheck(loss: Loss, oracle: Oracle) -> None:
    t, s = logits(B, C)
    assert torch.autograd.gradcheck(lambda x: call(loss, t, x, torch.tensor(LABELS)), (s.requires_grad_(),))


@EACH
def test_certain_predictions_give_no_nan(loss: Loss, oracle: Oracle) -> None:
    for gap in (1e3, 1e4):
        t = gap * torch.eye(C)
        for s in (t.clone(), t.roll(1, 0), torch.zeros(C, C)):
            assert all(part.isfinite().all() for part in value_and_gradients(loss, t, s, torch.arange(C)))


# --- logit standardization ------------------------------------------------------------------------------------------


@EACH_LOSS
def test_any_loss_can_be_computed_from_standardized_logits(kind: type[BaseLoss]) -> None:
    t, s = logits(B, C)
    third = third_argument(kind(), B, C)
    switched = value_and_gradients(kind(standardize=True), t, s, third)
    composed = value_and_gradients(
        lambda t, s, third: call(kind(), standardized(t), standardized(s), third), t, s, third
    )
    for got, expected in zip(switched, composed, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    moved = call(kind(standardize=True), 3 * t + 7, 0.5 * s - 2, third)
    torch.testing.assert_close(moved, switched[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="at least 2 classes"):
        call(kind(standardize=True), *logits(B, 1), third_argument(kind(), B, 1))


def test_rows_and_keywords_are_standardized_too() -> None:
    loss, (t, s) = KL(standardize=True), logits(B, C)
    assert isinstance(loss, RowLoss)
    expected = KL()(standardized(t), standardized(s))
    torch.testing.assert_close(loss.rows(t, s).mean(), expected)
    torch.testing.assert_close(loss(natural_logits=t, adversarial_logits=s), expected)
    pixels = [x.T.reshape(1, C, 2, B // 2) for x in (t, s)]
    torch.testing.assert_close(loss.rows(*pixels).mean(), expected)
    torch.testing.assert_close(
        sum(value_and_gradients(term, t, s, t)[2] for term in split_terms(loss).values()),
        value_and_gradients(loss, t, s, t)[2],
        rtol=1e-9,
        atol=1e-12,
    )


def test_equal_logits_standardize_to_zero_with_zero_gradient() -> None:
    x = torch.ones(2, C, requires_grad=True)
    standardized(x).square().sum().backward()
    assert not standardized(x).any()
    assert x.grad is not None
    assert not x.grad.any()


# --- identities -----------------------------------------------------------------------------------------------------


def test_normkd_is_kd_with_ls_and_the_teachers_variance() -> None:
    t, s = logits(B, C)
    one = t / t.std(1, keepdim=True)  # of unit variance
    torch.testing.assert_close(NormKD(weight=9)(one, s), KD(weight=9, logit_temperature=2, standardize=True)(one, s))


def test_abkd_has_kl_and_its_limits() -> None:
    t, s = logits(B, C)
    for temperature in (1.0, 4.0):
        kl = KD(weight=2 / temperature**2, logit_temperature=temperature)
        torch.testing.assert_close(ABKD(weight=2, alpha=1, beta=0, logit_temperature=temperature)(t, s), kl(t, s))
        torch.testing.assert_close(ABKD(weight=2, alpha=0, beta=1, logit_temperature=temperature)(t, s), kl(s, t))
    for limit, near in [((0.7, 0), (0.7, 1e-5)), ((0, 0.7), (1e-5, 0.7)), ((0, 0), (1e-4, 1e-4))]:
        at, close = (ABKD(alpha=alpha, beta=beta)(t, s) for alpha, beta in (limit, near))
        torch.testing.assert_close(at, close, rtol=1e-3, atol=1e-5)
        for alpha, beta in (near, [power if power > 0.1 else 1e-9 for power in limit]):  # no rounding errors
            rounded = ABKD(alpha=alpha, beta=beta)(t.float(), s.float())
            torch.testing.assert_close(rounded.double(), at, rtol=1e-3, atol=1e-5)


def test_wttm_weights_ttm_by_the_sum_of_powers() -> None:
    t, s = logits(B, C)
    sums = t.softmax(-1).pow(0.3).sum(-1)
    rows = torch.stack([TTM(weight=2, power=0.3)(t[[i]], s[[i]]) for i in range(B)])
    torch.testing.assert_close(WTTM(weight=2, power=0.3)(t, s), (sums * rows).mean(), rtol=1e-12, atol=0)
    assert (sums > 1).all()


# --- WKD-L ----------------------------------------------------------------------------------------------------------


def test_wkd_differs_little_from_the_code_that_adds_1e_8_to_every_product() -> None:
    t, s = (x.numpy() for x in logits(B, C, scale=2.0))
    for temperature in (1.0, 4.0, 8.0):
        assert wkd(temperature)(t, s) == pytest.approx(wkd(temperature, least=1e-8)(t, s), rel=1e-4)


def test_the_transport_converges_to_the_optimal_one() -> None:
    """Sinkhorn's flow costs at least the optimum of the linear program, and nears it as the smoothing falls."""
    t, s = logits(1, C)
    others = [0, 1, 3, 4]
    cost = 1 - np.exp(-DISTANCES[np.ix_(others, others)]) + 1e-8
    q, p = (oracles.softmax(x[0, others].numpy() / 4) for x in (s, t))
    sums = [np.kron(np.eye(4), np.ones(4)), np.kron(np.ones(4), np.eye(4))]
    optimum = linprog(cost.ravel(), A_eq=np.vstack(sums), b_eq=np.hstack([q, p])).fun
    labels, settings = torch.tensor([2]), {"logit_temperature": 4, "iterations": 20_000}
    costs = [
        call(WKD(weight=1, smoothing=smoothing, **settings), t, s, labels)
        - call(WKD(weight=0, smoothing=smoothing, **settings), t, s, labels)
        for smoothing in (1.0, 0.2, 0.03)
    ]
    assert costs[0] > costs[1] > costs[2] > optimum
    assert costs[2].item() == pytest.approx(optimum, rel=0.02)


def test_wkd_needs_distances_of_as_many_classes() -> None:
    t, s = logits(B, C)
    for shape in [(C, C + 1), (C - 1, C - 1), (B, C, C), (C,)]:
        with pytest.raises(ValueError, match=r"class_distances must be \(C, C\) = \(5, 5\)"):
            WKD()(t, s, labels=torch.tensor(LABELS), class_distances=torch.zeros(shape))


def test_the_transports_weight_decays_by_half_a_cosine() -> None:
    for epoch, factor in [(1, 1.0), (150, 1.0), (195, 0.5), (240, 0.0)]:
        assert WKD(weight=600, decay_from=0.625).at(epoch / 240).weight == pytest.approx(600 * factor)
    assert WKD(weight=30, decay_from=0).at(0.5).weight == pytest.approx(15)
    assert WKD(decay_from=1).at(1.0) == WKD(decay_from=1)


def test_distances_of_classes() -> None:
    rows = torch.randn(C, 7, dtype=torch.float64)
    features = torch.randn(C, 9, 7, dtype=torch.float64) + 5
    cosine, cka = classifier_distances(rows), feature_distances(features)
    for a in range(C):
        for b in range(C):
            assert cosine[a, b] == pytest.approx(1 - torch.cosine_similarity(rows[a], rows[b], dim=0).item(), abs=1e-12)
            assert cka[a, b] == pytest.approx(1 - oracles.linear_cka(features[a].numpy(), features[b].numpy()))


def test_choices_out_of_range_name_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="distances='logits', must be classifier or features"):
        WKD(distances="logits")
    with pytest.raises(ValueError, match=r"smoothing=0.01, must be a number from 0.03"):
        WKD(smoothing=0.01)
    with pytest.raises(ValueError, match="power=0, must be a number above 0"):
        TTM(power=0)
    assert math.isclose(ABKD().weight, 2 * ABKD().logit_temperature ** 2)
