"""What callers rely on: errors for wrong arguments, frozen and hashable losses, no silent double backward, compile."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from dkl.losses import DKL, GKL, IKL, KL, gap_mse, soft_cross_entropy
from tests.losses.common import Loss, logits, prior_weights, value_and_gradients
from tests.official.oracles import pairwise_dkl, pairwise_gkl, pairwise_ikl

PAIR_LOSSES = [KL(), DKL(), IKL(), GKL()]
BY_NAME = pytest.mark.parametrize("loss", PAIR_LOSSES, ids=lambda loss: type(loss).__name__)
BROADCAST = [((4, 5), (4, 1)), ((4, 5), (1, 5)), ((4, 5), (5,))]
BAD_SHAPES = [*BROADCAST, ((5,), (5,)), ((4, 5), (4, 6)), ((2, 4, 5), (2, 4, 5))]


@pytest.mark.parametrize(("first", "second"), BAD_SHAPES)
@pytest.mark.parametrize("loss", PAIR_LOSSES[1:], ids=lambda loss: type(loss).__name__)
def test_logits_of_unlike_shapes_raise(loss: DKL | IKL | GKL, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        loss(torch.randn(first), torch.randn(second), torch.ones(first))


@pytest.mark.parametrize(("first", "second"), BROADCAST)
def test_kl_of_unlike_shapes_raises(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        KL()(torch.randn(first), torch.randn(second))


@pytest.mark.parametrize(("first", "second"), BAD_SHAPES)
def test_functions_check_shapes(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of one shape"):
        soft_cross_entropy(torch.randn(first), torch.randn(second))
    with pytest.raises(ValueError, match="of one shape"):
        gap_mse(torch.randn(first), torch.randn(second), torch.ones(first))


@pytest.mark.parametrize("shape", [(5,), (1, 5), (4, 1), (5, 5), (4, 5, 1)])
@pytest.mark.parametrize("loss", PAIR_LOSSES[1:], ids=lambda loss: type(loss).__name__)
def test_weights_must_be_one_row_a_sample(loss: DKL | IKL | GKL, shape: tuple[int, ...]) -> None:
    m, n = logits(4, 5)
    with pytest.raises(ValueError, match=r"prior\[target\]"):
        loss(m, n, torch.ones(shape))


@pytest.mark.parametrize("loss", [IKL(), GKL(), DKL(weighting="class")], ids=lambda loss: type(loss).__name__)
def test_class_weighting_without_weights_raises(loss: DKL | IKL | GKL) -> None:
    with pytest.raises(ValueError, match="weights=prior"):
        loss(*logits(4, 5))


@pytest.mark.parametrize(
    ("kind", "weighting"), [(KL, "class"), (KL, "sample"), (DKL, "none"), (IKL, "none"), (GKL, "none"), (IKL, "batch")]
)
def test_a_weighting_the_loss_does_not_know_raises(kind: Callable[..., object], weighting: str) -> None:
    with pytest.raises(ValueError, match="weighting"):
        kind(weighting=weighting)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, True, "5", None])
@pytest.mark.parametrize(
    ("kind", "field"), [(KL, "weight"), (DKL, "wmse_weight"), (IKL, "ce_weight"), (GKL, "gamma"), (GKL, "wmse_weight")]
)
def test_numbers_no_loss_can_use_raise(kind: Callable[..., object], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"\b{field}\b"):
        kind(**{field: value})


@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_unknown_reduction_raises(reduction: str) -> None:
    m, n = logits(4, 5)
    with pytest.raises(ValueError, match="reduction"):
        gap_mse(m, n, prior_weights(4, 5), reduction=reduction)


@BY_NAME
def test_losses_are_frozen_values(loss: KL | DKL | IKL | GKL) -> None:
    for field in dataclasses.fields(loss):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 1.0)
    assert hash(loss) == hash(type(loss)())
    assert {loss: "found"}[type(loss)()] == "found"
    other = dataclasses.replace(loss, **{next(iter(dataclasses.fields(loss))).name: 7.0})
    assert other != loss


@BY_NAME
def test_nothing_is_written_to_the_arguments(loss: KL | DKL | IKL | GKL) -> None:
    m, n = logits(4, 5, torch.float32)
    weights = prior_weights(4, 5, torch.float32)
    before = [x.clone() for x in (m, n, weights)]
    value_and_gradients(loss, m, n, weights)
    loss(m, n, weights)
    assert all(torch.equal(x, y) for x, y in zip((m, n, weights), before, strict=True))


PAIRWISE: dict[type, Loss] = {
    DKL: partial(pairwise_dkl, wmse_weight=1.0, ce_weight=1.0),
    IKL: partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0),
    GKL: partial(pairwise_gkl, wmse_weight=20.0, ce_weight=4.0, gamma=0.4),
}


def penalty_gradient(loss: Loss, images: Tensor, weights: Tensor) -> Tensor:
    """Gradient of a gradient penalty, with logits that depend on ``images[2, B, C]`` nonlinearly, as a model's do."""
    images = images.clone().requires_grad_()
    m, n = images.square()
    (gradient,) = torch.autograd.grad(loss(m, n, weights), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    return second


@pytest.mark.parametrize("kind", list(PAIRWISE))
def test_second_derivatives_raise_or_are_right(kind: type[DKL | IKL | GKL]) -> None:
    images, weights = torch.stack(logits(4, 5, scale=1.0)), prior_weights(4, 5)
    expected = penalty_gradient(PAIRWISE[kind], images, weights)
    try:
        got = penalty_gradient(kind(), images, weights)
    except RuntimeError:
        return
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@BY_NAME
def test_a_detached_argument_changes_nothing_for_the_other(loss: KL | DKL | IKL | GKL) -> None:
    m, n = logits(4, 5)
    weights = prior_weights(4, 5)
    natural, adversarial = m.clone().requires_grad_(), n.clone().requires_grad_()
    full = value_and_gradients(loss, m, n, weights)
    loss(natural, n, weights).backward()
    loss(m, adversarial, weights).backward()
    torch.testing.assert_close(natural.grad, full[1], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(adversarial.grad, full[2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", [DKL(), IKL(), GKL()])
def test_weights_get_no_gradient(loss: DKL | IKL | GKL) -> None:
    m, n = (x.requires_grad_() for x in logits(4, 5))
    weights = prior_weights(4, 5).requires_grad_()
    loss(m, n, weights).backward()
    assert m.grad is not None
    assert weights.grad is None


def _all_losses(m: Tensor, n: Tensor, weights: Tensor) -> Tensor:
    return DKL()(m, n) + IKL()(m, n, weights) + 2 * GKL()(m, n, weights) + 3 * KL()(m, n)


def test_compiled_losses_equal_eager_ones() -> None:
    m, n = logits(6, 10, torch.float32)
    weights = prior_weights(6, 10, torch.float32)
    eager = value_and_gradients(_all_losses, m, n, weights)
    compiled = value_and_gradients(torch.compile(_all_losses, fullgraph=True), m, n, weights)
    for got, expected in zip(compiled, eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-6)
