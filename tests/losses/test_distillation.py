"""KD, DKD, DIST, JSD and losses between two views equal their papers' equations, values and gradients."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dkl.losses import DIST, DKD, DKL, IKL, JSD, KD, ProbabilityMSE, PseudoLabelCE, SoftCE, gap_mse
from tests.losses.common import Loss, call, logits, value_and_gradients
from tests.official import distillation_losses as oracles
from tests.official.oracles import pairwise_gap_mse

B, C = 6, 5
LABELS = [0, 3, 4, 1, 1, 2]
TEMPERATURES = (1.0, 3.0, 4.0)

Case = tuple[Loss, Callable[[oracles.Array, oracles.Array], float]]
FINITE = st.floats(-20, 20, allow_nan=False, width=64)


def cases(temperature: float) -> dict[str, Case]:
    """Each loss at ``temperature`` and its oracle."""
    return {
        "kd": (KD(weight=0.9, logit_temperature=temperature), lambda t, s: 0.9 * oracles.kd(t, s, temperature)),
        "dkd": (
            DKD(alpha=1.5, beta=8, logit_temperature=temperature),
            partial(oracles.dkd, labels=LABELS, temperature=temperature, alpha=1.5, beta=8),
        ),
        "dist": (
            DIST(beta=2, gamma=0.7, logit_temperature=temperature),
            partial(oracles.dist, temperature=temperature, beta=2, gamma=0.7),
        ),
        "jsd": (JSD(weight=3, logit_temperature=temperature), lambda t, s: 3 * oracles.jsd(t, s, temperature)),
    }


EACH = pytest.mark.parametrize("name", cases(1.0))


def outcome(loss: Loss, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and gradients with ``LABELS``."""
    return value_and_gradients(loss, t, s, torch.tensor(LABELS))


@EACH
def test_values_and_student_gradients_are_the_papers(name: str) -> None:
    for temperature in TEMPERATURES:
        loss, oracle = cases(temperature)[name]
        t, s = logits(B, C, scale=2.0)
        value, _, gradient = outcome(loss, t, s)
        assert value.item() == pytest.approx(oracle(t.numpy(), s.numpy()), rel=1e-10)
        expected = oracles.slope(lambda x, t=t, oracle=oracle: oracle(t.numpy(), x), s.numpy())
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-7, atol=1e-9)
        assert np.abs(expected).max() > 1e-3


@EACH
def test_only_jsd_differentiates_the_teacher(name: str) -> None:
    loss, oracle = cases(4.0)[name]
    t, s = logits(B, C)
    _, gradient, _ = outcome(loss, t, s)
    expected = oracles.slope(lambda x: oracle(x, s.numpy()), t.numpy())
    wanted = expected if name == "jsd" else 0 * expected
    np.testing.assert_allclose(gradient.detach().numpy(), wanted, rtol=1e-7, atol=1e-9)


@EACH
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_float32_is_as_good_as_float64_at_any_offset_and_scale(name: str, temperature: float) -> None:
    loss, oracle = cases(temperature)[name]
    for teacher_offset, student_offset in [(0, 0), (1e4, 1e4), (-1e4, 0), (0, 1e4)]:
        t, s = logits(B, C, torch.float32, scale=2.0)
        t, s = t + teacher_offset, s + student_offset
        value, _, gradient = outcome(loss, t, s)
        assert value.dtype == gradient.dtype == torch.float32
        exact_t, exact_s = t.double().numpy() - teacher_offset, s.double().numpy() - student_offset
        assert value.item() == pytest.approx(oracle(exact_t, exact_s), rel=2e-6)
        expected = oracles.slope(lambda x, t=exact_t: oracle(t, x), exact_s)
        assert np.abs(gradient.numpy() - expected).max() <= 3e-6 * np.abs(expected).max()
    t, s = (100 * x for x in logits(B, C, torch.float32))
    value, _, gradient = outcome(loss, t, s)
    t64, s64 = t.double().numpy(), s.double().numpy()
    assert value.item() == pytest.approx(oracle(t64, s64), rel=1e-5)
    expected = oracles.slope(lambda x: oracle(t64, x), s64, step=1e-3)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-5 * max(1, float(np.abs(expected).max())))


@EACH
def test_half_inputs_and_autocast_are_computed_in_float32(name: str) -> None:
    loss, _ = cases(3.0)[name]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        t, s = (x.to(dtype) for x in logits(B, C))
        value, _, gradient = outcome(loss, t.float(), s.float())
        plain = outcome(loss, t, s)
        with torch.autocast("cpu", torch.bfloat16):
            cast = outcome(loss, t, s)
        for got in (plain, cast):
            assert got[0].dtype == torch.float32
            assert torch.equal(got[0], value)
            assert torch.equal(got[2], gradient.to(dtype))


@EACH
def test_gradcheck(name: str) -> None:
    loss, _ = cases(4.0)[name]
    t, s = logits(B, C)
    assert torch.autograd.gradcheck(lambda x: call(loss, t, x, torch.tensor(LABELS)), (s.requires_grad_(),))


@EACH
def test_no_loss_and_no_gradient_where_student_and_teacher_agree(name: str) -> None:
    loss, _ = cases(4.0)[name]
    t, _ = logits(B, C)
    value, _, gradient = outcome(loss, t, t + 7)
    assert value.item() == pytest.approx(0, abs=1e-5)  # DIST's eps leaves a little
    assert gradient.abs().max() <= 1e-6


# --- certain predictions --------------------------------------------------------------------------------------------


@EACH
def test_underflow_gives_no_nan(name: str) -> None:
    loss, _ = cases(1.0)[name]
    for gap in (1e3, 1e4):
        rest = 0.75 * gap - math.log(4)  # the teacher's other 4 classes are alike, the student is certain of one
        apart = {"kd": 0.9 * gap, "dkd": 1.5 * gap + 8 * rest, "jsd": 3 * math.log(2), "dist": 2.7 * 1.25}
        t = gap * torch.eye(C)
        for s, expected in ((t.clone(), 0.0), (t.roll(1, 0), apart[name])):
            parts = value_and_gradients(loss, t, s, torch.arange(C))
            assert all(part.isfinite().all() for part in parts)
            assert parts[0].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", ["kd", "dist", "jsd"])
def test_with_one_class_the_gradient_is_zero(name: str) -> None:
    loss, _ = cases(4.0)[name]
    _, _, gradient = value_and_gradients(loss, *logits(B, 1), torch.zeros(B, dtype=torch.int64))
    assert not gradient.any()


def test_a_single_sample_has_no_correlation_within_classes() -> None:
    t, s = logits(1, C)
    inter = outcome(DIST(gamma=0), t, s)
    both = outcome(DIST(gamma=3), t, s)
    assert both[0] - inter[0] == pytest.approx(3)  # 1 − 0, constant
    assert torch.equal(both[2], inter[2])


def test_dist_damps_the_correlations_of_columns_smaller_than_its_eps() -> None:
    t, s = logits(B, C)
    t[:, 0] -= 25  # a class that nobody predicts: its column's norms are far below 1e-4
    s[:, 0] -= 25
    damped, plain = (oracles.dist(t.numpy(), s.numpy(), 1.0, 0.0, 1.0, eps) for eps in (1e-8, 0.0))
    assert DIST(beta=0)(t, s).item() == pytest.approx(damped, rel=1e-9)
    assert abs(plain - damped) > 1e-3


# --- theorems -------------------------------------------------------------------------------------------------------


@st.composite
def labeled_pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, float]:
    classes = draw(st.integers(2, 8))
    t, s = (torch.from_numpy(draw(arrays("float64", (1, classes), elements=FINITE)).copy()) for _ in range(2))
    return t, s, draw(st.integers(0, classes - 1)), draw(st.sampled_from([1.0, 2.0, 4.0]))


@given(labeled_pairs())
def test_kd_is_tckd_plus_nckd_times_one_minus_the_target(case: tuple[Tensor, Tensor, int, float]) -> None:
    t, s, label, temperature = case
    y = torch.tensor([label])
    kd, tckd, nckd = (
        value_and_gradients(loss, t, s, y)
        for loss in (
            KD(logit_temperature=temperature),
            DKD(alpha=1, beta=0, logit_temperature=temperature),
            DKD(alpha=0, beta=1, logit_temperature=temperature),
        )
    )
    left = 1 - oracles.softmax(t[0].numpy() / temperature)[label]
    for whole, target, others in zip(kd, tckd, nckd, strict=True):
        torch.testing.assert_close(whole, target + left * others, rtol=1e-9, atol=1e-10)


def test_dkd_is_mdistillers_masked_form() -> None:
    labels = torch.tensor(LABELS)
    for scale in (1.0, 5.0, 40.0):
        t, s = logits(B, C, scale=scale)
        for temperature in TEMPERATURES:
            expected = oracles.masked_dkd(t.numpy(), s.numpy(), LABELS, temperature, 1.0, 8.0)
            found = DKD(logit_temperature=temperature)(t, s, labels=labels).item()
            assert found == pytest.approx(expected, rel=1e-9)
    assert abs(DKD()(t, s, labels=labels) - DKD()(t, s, labels=labels.roll(1))) > 0.1


@given(labeled_pairs())
def test_jsd_is_symmetric_and_lies_between_0_and_log_2(case: tuple[Tensor, Tensor, int, float]) -> None:
    t, s, _, temperature = case
    value = JSD(logit_temperature=temperature)(t, s)
    torch.testing.assert_close(value, JSD(logit_temperature=temperature)(s, t), rtol=1e-9, atol=1e-12)
    assert -1e-12 <= value.item() <= math.log(2) + 1e-12


@given(labeled_pairs())
def test_dkl_teaches_the_student_what_kd_does(case: tuple[Tensor, Tensor, int, float]) -> None:
    t, s, _, temperature = case
    kd = value_and_gradients(KD(logit_temperature=1), t, s, t)
    dkl = value_and_gradients(lambda t, s, w: DKL(wmse_weight=1, ce_weight=1, weighting="sample")(t, s), t, s, t)
    torch.testing.assert_close(dkl[2], kd[2], rtol=1e-9, atol=1e-13)
    kd = value_and_gradients(KD(logit_temperature=temperature), t, s, t)
    soft = value_and_gradients(IKL(wmse_weight=0, ce_weight=1, ce_temperature=temperature), t, s, t)
    torch.testing.assert_close(
        temperature**2 * soft[2], kd[2], rtol=1e-9, atol=1e-13
    )  # the official cross-entropy has no T²


def loop(weak: Tensor, strong: Tensor, kind: str) -> Tensor:
    """The mean over samples, class by class, with gradient to the strong view only."""
    total, classes = torch.zeros((), dtype=weak.dtype), weak.shape[1]
    for m, n in zip(weak.detach(), strong, strict=True):
        p, q = m.exp() / m.exp().sum(), n.exp() / n.exp().sum()
        if kind == "hard":
            total = total - q[max(range(classes), key=lambda c: m[c].item())].log()
        elif kind == "soft":
            total = total - sum(p[c] * q[c].log() for c in range(classes))
        else:
            total = total + sum((p[c] - q[c]) ** 2 for c in range(classes)) / classes
    return total / len(weak)


@pytest.mark.parametrize(
    ("kind", "loss"), [("hard", PseudoLabelCE()), ("soft", SoftCE()), ("mse", ProbabilityMSE())], ids=str
)
def test_a_loss_is_a_loop_over_samples(kind: str, loss: Loss) -> None:
    m, n = logits(5, 4)
    ours = value_and_gradients(loss, m, n, m)
    theirs = value_and_gradients(lambda m, n, _: loop(m, n, kind), m, n, m)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert not ours[1].any()
    torch.testing.assert_close(type(loss)(weight=3.0)(m, n), 3 * ours[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("total", [1.0, 2.5])
def test_the_gradient_in_the_weights_is_that_of_the_pairs(total: float) -> None:
    m, n = logits(6, 5)
    weights = (total * torch.rand(6, 5, dtype=torch.float64).softmax(-1)).requires_grad_()
    (ours,) = torch.autograd.grad(gap_mse(m, n, weights), weights)
    (pairs,) = torch.autograd.grad(pairwise_gap_mse(m, n, weights).mean(), weights)
    torch.testing.assert_close(ours, pairs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda w: gap_mse(m, n, w, "none"), weights)


def test_weights_made_from_the_weak_view_are_differentiated_on_request() -> None:
    def official(m: Tensor, n: Tensor, _: Tensor) -> Tensor:
        return pairwise_gap_mse(m, n, m.softmax(-1)).mean()

    m, n = logits(6, 5)
    values = {
        detach: value_and_gradients(
            lambda m, n, _, detach=detach: IKL(
                wmse_weight=1.0, ce_weight=0.0, weighting="sample", detach_weights=detach
            )(m, n),
            m,
            n,
            m,
        )
        for detach in (True, False)
    }
    for ours, theirs in zip(values[False], value_and_gradients(official, m, n, m), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert math.isclose(values[True][0], values[False][0])
    assert not torch.allclose(values[True][1], values[False][1], atol=1e-3)
