"""What callers of any loss rely on: errors for wrong arguments, frozen values, no wrong double backward, compile."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from dkl.losses import DKD, DKL, GKL, IKL, WKD, BaseLoss, check_pair_loss, gap_mse, soft_cross_entropy
from tests.configs.common import CONFIGS
from tests.losses.common import EACH_LOSS, Loss, call, logits, prior_weights, third_argument, value_and_gradients
from tests.official.oracles import pairwise_dkl, pairwise_gkl, pairwise_ikl

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
        for loss in (kind(), soft_cross_entropy, gap_mse):
            given = (m, n) if loss is soft_cross_entropy else (m, n, third)
            with pytest.raises(ValueError, match="must have the same shape"):
                call(loss, *given) if len(given) == 3 else loss(*given)


@EACH_LOSS
def test_the_mean_over_an_empty_batch_is_nan_as_in_torch(kind: type[BaseLoss]) -> None:
    loss = kind()
    value = call(loss, *logits(0, 5), third_argument(loss, 0, 5))
    assert value.shape == ()
    assert value.isnan()


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


def test_unknown_reductions_raise() -> None:
    for reduction in ("sum", "batchmean"):
        with pytest.raises(ValueError, match="reduction"):
            gap_mse(*logits(4, 5), prior_weights(4, 5), reduction=reduction)


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


CHOICES: dict[str, dict[str, Any]] = {
    "kd": {"weight": 0.9, "logit_temperature": 4},
    "dkd": {"alpha": 1, "beta": 8, "logit_temperature": 4},
    "dist": {"beta": 1, "gamma": 1, "logit_temperature": 1},
    "jsd": {"weight": 1, "logit_temperature": 1},
    "ikl_kd": {
        **{"wmse_weight": 8, "ce_weight": 1, "ce_temperature": 4},
        **{"sample_temperature": 100, "weighting": "sample"},
    },
    "gkl_kd": {"wmse_weight": 16, "ce_weight": 1, "gamma": 0.05, "ce_temperature": 4, "sample_temperature": 4},
}


def test_the_choices_are_the_official_cifar_100_settings() -> None:
    for choice, settings in CHOICES.items():
        found = instantiate(OmegaConf.load(CONFIGS / "loss" / f"{choice}.yaml"))
        assert found == type(found)(**settings), choice


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
