"""What callers of any loss rely on: errors for wrong arguments, frozen values, no wrong double backward, compile."""

import dataclasses
import doctest
import inspect
import math
import pydoc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from dkl.losses import (
    DKD,
    DKL,
    GKL,
    IKL,
    KL,
    WKD,
    BaseLoss,
    GKLLoss,
    IKLLoss,
    check_pair_loss,
    gap_mse,
    modules,
    soft_cross_entropy,
)
from tests.losses.common import (
    EACH_LOSS,
    PAIR_LOSSES,
    Loss,
    call,
    logits,
    prior_weights,
    third_argument,
    value_and_gradients,
)
from tests.official.oracles import pairwise_dkl, pairwise_gap_mse, pairwise_gkl, pairwise_ikl

BAD_SHAPES = [
    *(((4, 5), (4, 1)), ((4, 5), (1, 5)), ((4, 5), (5,))),  # these would broadcast
    *(((5,), (5,)), ((4, 5), (4, 6)), ((2, 4, 5), (2, 4, 5))),
]
WEIGHTED = pytest.mark.parametrize("kind", [DKL, IKL, GKL])


@EACH_LOSS
def test_logits_of_different_shapes_raise(kind: type[BaseLoss]) -> None:
    for first, second in BAD_SHAPES:
        m, n = torch.randn(first), torch.randn(second)
        third = torch.zeros(4, dtype=torch.int64) if kind().weighting == "label" else torch.ones(first)
        dense = first == second and len(first) > 2  # the functions take those
        for loss in (kind(), *(() if dense else (soft_cross_entropy, gap_mse))):
            given = (m, n) if loss is soft_cross_entropy else (m, n, third)
            with pytest.raises(ValueError, match="must have the same shape"):
                call(loss, *given) if len(given) == 3 else loss(*given)


@pytest.mark.parametrize("loss", [KL(), DKL(), IKL(), GKL(), gap_mse, lambda m, n, w: soft_cross_entropy(m, n)])
def test_the_loss_of_no_samples_is_zero_with_a_gradient(loss: Loss) -> None:
    value, *gradients = value_and_gradients(loss, *logits(0, 5), prior_weights(0, 5))
    assert torch.equal(value, torch.zeros(()).double())
    assert all(gradient.shape == (0, 5) for gradient in gradients)


@WEIGHTED
def test_weights_must_be_given_and_one_row_per_sample(kind: type[BaseLoss]) -> None:
    m, n = logits(4, 5)
    for shape in [(5,), (1, 5), (4, 1), (5, 5), (4, 5, 1)]:
        with pytest.raises(ValueError, match=r"prior\[target\]"):
            kind()(m, n, weights=torch.ones(shape))
    with pytest.raises(ValueError, match="weights=prior"):
        kind(weighting="class")(m, n)
    with pytest.raises(TypeError, match="positional"):
        kind()(m, n, torch.ones(4, 5))


def test_labels_of_the_wrong_kind_raise() -> None:
    labels, pair = torch.tensor([0, 4, 2, 2]), logits(4, 5)
    for loss in (DKD(), WKD()):
        for wrong in (labels.float(), labels.int(), labels[:3], labels[:, None], torch.eye(5)[labels], torch.tensor(1)):
            with pytest.raises(ValueError, match="labels must be int64"):
                call(loss, *pair, wrong)
        for beyond in (-1, 5):
            with pytest.raises(RuntimeError, match="out of bounds"):
                call(loss, *pair, torch.tensor([0, 1, 2, beyond]))
        with pytest.raises(TypeError, match="labels"):
            loss(*pair)
        with pytest.raises(ValueError, match="at least 2 classes"):
            call(loss, *logits(4, 1), torch.zeros(4, dtype=torch.int64))


@EACH_LOSS
def test_settings_out_of_range_raise(kind: type[BaseLoss]) -> None:
    for field in dataclasses.fields(kind):
        for value in (-0.1, math.nan, math.inf, True, "5", None):
            if field.type is bool and value is True:
                continue
            with pytest.raises(ValueError, match=rf"{kind.__name__}: {field.name}=.*must be"):
                kind(**{field.name: value})
        if field.name.endswith("temperature"):
            with pytest.raises(ValueError, match=rf"{field.name}=0.*above 0"):
                kind(**{field.name: 0})
    for weighting in ("none", "batch", "label"):
        with pytest.raises((ValueError, TypeError), match="weighting"):
            kind(weighting=weighting)


@EACH_LOSS
def test_losses_are_frozen_values(kind: type[BaseLoss]) -> None:
    loss: Any = kind()
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 1.0)
    assert {loss: "found"}[kind()] == "found"
    assert dataclasses.replace(loss, standardize=True) != loss
    with pytest.raises(TypeError, match="positional"):
        kind(1.0)


@EACH_LOSS
def test_arguments_are_not_changed_and_weights_get_no_gradient(kind: type[BaseLoss]) -> None:
    loss = kind()
    given = (*logits(4, 5, torch.float32), third_argument(loss, 4, 5, torch.float32))
    before = [x.clone() for x in given]
    value_and_gradients(loss, *given)
    call(loss, *given)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
    m, n, weights = (x.requires_grad_() if x.is_floating_point() else x for x in given)
    call(loss, m, n, weights).backward()
    assert n.grad is not None
    assert weights.grad is None


PAIRWISE: dict[type, Loss] = {
    DKL: partial(pairwise_dkl, wmse_weight=1.0, ce_weight=1.0),
    IKL: partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0),
    GKL: partial(pairwise_gkl, wmse_weight=20.0, ce_weight=4.0, gamma=0.4),
}


def penalty_gradient(loss: Loss, images: Tensor, weights: Tensor) -> Tensor:
    """Gradient of a gradient penalty, with logits that depend on ``images[2, B, C]`` nonlinearly, as a model's do."""
    images = images.clone().requires_grad_()
    m, n = images.square()
    (gradient,) = torch.autograd.grad(call(loss, m, n, weights), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    return second


@WEIGHTED
def test_second_derivatives_raise_or_are_right(kind: type[BaseLoss]) -> None:
    images, weights = torch.stack(logits(4, 5, scale=1.0)), prior_weights(4, 5)
    expected = penalty_gradient(PAIRWISE[kind], images, weights)
    try:
        got = penalty_gradient(kind(), images, weights)
    except RuntimeError:
        return
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@EACH_LOSS
def test_detaching_one_side_does_not_change_the_other_sides_gradient(kind: type[BaseLoss]) -> None:
    loss = kind()
    m, n = logits(4, 5)
    third = third_argument(loss, 4, 5)
    natural, adversarial = m.clone().requires_grad_(), n.clone().requires_grad_()
    full = value_and_gradients(loss, m, n, third)
    call(loss, m, adversarial, third).backward()
    torch.testing.assert_close(adversarial.grad, full[2], rtol=1e-12, atol=1e-14)
    value = call(loss, natural, n, third)
    if value.requires_grad:  # KD, DKD and DIST do not differentiate the teacher
        value.backward()
        torch.testing.assert_close(natural.grad, full[1], rtol=1e-12, atol=1e-14)
    else:
        assert not full[1].any()


def test_compiled_losses_equal_eager_ones() -> None:
    m, n = logits(6, 10, torch.float32)
    weights, ikl, gkl = prior_weights(6, 10, torch.float32), IKL(), GKL()

    def sum_of_losses(m: Tensor, n: Tensor, weights: Tensor) -> Tensor:
        return ikl(m, n, weights=weights) + 2 * gkl(m, n, weights=weights)

    eager = value_and_gradients(sum_of_losses, m, n, weights)
    compiled = value_and_gradients(torch.compile(sum_of_losses, fullgraph=True), m, n, weights)
    for got, expected in zip(compiled, eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["KL", "DKL", "KD", "DKD", "DIST", "JSD", "WTTM", "WKD", "ABKD", "NormKD"])
def test_losses_trace_into_one_graph(kind: str) -> None:
    torch.compiler.reset()  # they share the frame that dynamo counts recompilations of
    loss = getattr(sys.modules["dkl.losses"], kind)()
    t, s = logits(4, 5)
    third = third_argument(loss, 4, 5)
    traced = torch.compile(partial(call, loss), backend="aot_eager", fullgraph=True)
    eager = value_and_gradients(loss, t, s, third)
    for got, expected in zip(value_and_gradients(traced, t, s, third), eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [IKLLoss, GKLLoss])
@pytest.mark.parametrize("settings", [{}, {"ignore_index": 0, "reduction": "sum"}], ids=["plain", "ignoring"])
def test_drop_ins_compile_into_one_graph(kind: type[IKLLoss | GKLLoss], settings: dict[str, Any]) -> None:
    target = torch.tensor([0, 4, 2, 2])
    eager, traced = kind(5, **settings), kind(5, **settings)
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    for _ in range(2):  # the second epoch uses the predictions of the first
        pair = logits(4, 5, torch.float32)
        expected = value_and_gradients(lambda m, n, w: eager(m, n, target), *pair, target)
        for got, wanted in zip(
            value_and_gradients(lambda m, n, w: compiled(m, n, target), *pair, target), expected, strict=True
        ):
            torch.testing.assert_close(got, wanted)
        for criterion in (eager, traced):
            criterion.end_epoch()
    torch.testing.assert_close(traced.prior.table, eager.prior.table)
    assert not torch.allclose(traced.prior.table[2], torch.full((5,), 0.2))


FUNCTIONAL: dict[str, Loss] = {
    "gap_mse": gap_mse,
    "soft_cross_entropy": lambda m, n, w: soft_cross_entropy(m, n),
    "KL": lambda m, n, w: KL()(m, n),
    "DKL": lambda m, n, w: DKL()(m, n, weights=w),
    "IKL": lambda m, n, w: IKL(ce_temperature=2)(m, n, weights=w),
    "IKL, sample": lambda m, n, w: IKL(weighting="sample", detach_weights=False)(m, n),
    "IKL, rows": lambda m, n, w: IKL(weighting="sample").rows(m, n).mean(),
    "GKL": lambda m, n, w: GKL()(m, n, weights=w),
}


@pytest.mark.parametrize("loss", FUNCTIONAL.values(), ids=FUNCTIONAL)
def test_torch_func_gives_the_gradients_of_autograd(loss: Loss) -> None:
    m, n = logits(6, 5)
    weights = prior_weights(6, 5)
    for argument in (0, 1):
        got = torch.func.grad(loss, argnums=argument)(m, n, weights)
        torch.testing.assert_close(got, value_and_gradients(loss, m, n, weights)[1 + argument])

    def single(m: Tensor, n: Tensor, w: Tensor) -> Tensor:
        return loss(m[None], n[None], w[None])

    # One gradient per sample, also if only one side has a sample of its own.
    for shared in (False, True):
        first, axis = (m[0], None) if shared else (m, 0)
        per_sample = torch.func.vmap(torch.func.grad(single, argnums=1), in_dims=(axis, 0, 0))(first, n, weights)
        for i in range(6):
            expected = value_and_gradients(loss, m[:1] if shared else m[i : i + 1], n[i : i + 1], weights[i : i + 1])
            torch.testing.assert_close(per_sample[i : i + 1], expected[2])


def test_torch_func_differentiates_twice() -> None:
    m, n = logits(2, 4)
    weights = prior_weights(2, 4)
    ours, oracle = (lambda n: gap_mse(m, n, weights)), (lambda n: pairwise_gap_mse(m, n, weights).mean())
    twice, expected = (torch.func.jacrev(torch.func.grad(loss)) for loss in (ours, oracle))
    torch.testing.assert_close(twice(n), expected(n))
    torch.testing.assert_close(torch.compile(twice, backend="aot_eager")(n), expected(n))


@pytest.mark.parametrize("kind", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
def test_signatures_show_plain_types(kind: type[BaseLoss]) -> None:
    assert "Annotated" not in pydoc.render_doc(kind).partition("Methods inherited")[0]
    assert inspect.signature(IKL).parameters["wmse_weight"] == inspect.Parameter(
        "wmse_weight", inspect.Parameter.KEYWORD_ONLY, default=20.0, annotation=float
    )


def test_examples_in_docstrings_run() -> None:
    found = doctest.testmod(modules)
    assert found.attempted == 9
    assert found.failed == 0


# --- losses from elsewhere ------------------------------------------------------------------------------------------


class LogitMSE:
    """The complete loss of the documentation."""

    weighting = "none"

    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        return (natural_logits - adversarial_logits).square().mean()


class NoWeighting:
    def __call__(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        return natural_logits.sum()


class NoLabels(NoWeighting):
    weighting = "label"


class Unknown(NoWeighting):
    weighting = "batch"


class NotCallable:
    weighting = "none"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (NoWeighting, "NoWeighting has no attribute weighting, which must be one of class, sample, label, none: set"),
        (Unknown, "Unknown has weighting='batch', which must be one of"),
        (NoLabels, r"NoLabels has weighting='label' and must take \(.*labels=\.\.\.\): got an unexpected keyword"),
        (NotCallable, "NotCallable is not callable: give it __call__"),
    ],
)
def test_a_loss_without_the_contract_is_refused_with_what_is_missing(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message) as found:
        check_pair_loss(make())
    assert "\n" not in str(found.value)


def test_a_plain_class_with_the_contract_is_a_loss() -> None:
    loss = LogitMSE()
    assert check_pair_loss(loss) is loss


def test_importing_the_losses_needs_torch_and_numpy_only() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        blocked = {"timm", "hydra", "omegaconf", "wandb", "torchvision", "rich", "scipy", "pydantic"}
        if name.partition(".")[0] in blocked:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import torch, dkl.losses as losses
logits = torch.randn(4, 3, requires_grad=True)
criterion = losses.IKLLoss(num_classes=3)
criterion(torch.randn(4, 3), logits, torch.tensor([0, 1, 2, 0])).backward()
criterion.end_epoch()
ours = sorted(name for name in sys.modules if name.startswith("dkl.") and not name.startswith("dkl.losses"))
assert ours == ["dkl.errors", "dkl.validation"], ours  # Python alone
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
