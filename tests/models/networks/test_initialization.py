"""Networks are initialized as in the original codes, and take a training step correctly."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models import create_model
from dkl.models.networks.cifar_resnet import CifarResNet
from dkl.models.networks.wide_resnet import SwishWideResNet, WideResNet
from tests.models.common import with_fitted_statistics

SMALL = ["cifar_resnet8", "cifar_wrn_16_1", "cifar_mobilenetv2", "cifar_shufflev1", "cifar_shufflev2"]
EACH_FAMILY = [*SMALL, "cifar_resnet18", "cifar_resnet50", "cifar_vgg8", "mobilenetv1"]
ROBUST = ["wrn10_2", "wrn10_2_swish", "preact_resnet18_w16", "small_cnn"]


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def head_of(model: nn.Module) -> nn.Linear:
    (head,) = (module for module in model.modules() if isinstance(module, nn.Linear))
    return head


def assert_uniform(values: Tensor, bound: float) -> None:
    """``values`` are uniform on (−bound, bound), judged by their standard deviation to five standard errors."""
    assert values.abs().max() <= bound
    error = 5 * 0.45 / math.sqrt(values.numel())  # √((9/5 − 1) / 4n), with the kurtosis 9/5
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=error)


@pytest.mark.parametrize(
    "name", ["cifar_resnet8x4", "cifar_resnet18", "cifar_wrn_16_2", "cifar_vgg8", "cifar_mobilenetv2", "wrn10_2_swish"]
)
def test_convolutions_are_normal_with_the_variance_of_their_fan_out(name: str, seed: int) -> None:
    for module in convolutions(create_model(name, 10)):
        expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
        error = 5 / math.sqrt(2 * module.weight.numel())
        assert module.weight.std().item() == pytest.approx(expected, rel=error)
        assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", ["cifar_shufflev1", "cifar_shufflev2", "mobilenetv1"])
def test_other_convolutions_have_the_default_of_torch(name: str, seed: int) -> None:
    for module in convolutions(create_model(name, 10)):
        assert_uniform(module.weight, 1 / math.sqrt(module.weight[0].numel()))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        *((name, "small and normal") for name in ("cifar_vgg8", "cifar_mobilenetv2")),
        *((name, "default of torch") for name in ("cifar_resnet8", "cifar_resnet18", "mobilenetv1")),
        *((name, "default of torch") for name in ("cifar_shufflev1", "cifar_shufflev2")),
        *((name, "bias of zero") for name in ("cifar_wrn_16_1", "wrn10_2_swish")),
    ],
)
def test_a_head_has_the_start_of_its_family(name: str, start: str, seed: int) -> None:
    head = head_of(create_model(name, 1000))
    assert head.bias.any() == (start == "default of torch")
    if start == "default of torch":
        assert_uniform(head.weight, 1 / math.sqrt(head.in_features))
        assert_uniform(head.bias, 1 / math.sqrt(head.in_features))
    elif start == "small and normal":
        assert head.weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(2 * head.weight.numel()))
        assert head.weight.abs().max() > 0.03


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_batchnorms_start_as_the_identity_and_update_their_statistics_once_per_step(name: str) -> None:
    model = create_model(name, 10, 1).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        assert (norm.momentum, norm.eps) == (0.1, 1e-5)
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
    logits = model(torch.rand(8, 1, 8, 8))
    F.cross_entropy(logits, torch.arange(8)).backward()
    assert [norm.num_batches_tracked.item() for norm in norms] == [1] * len(norms)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", [*SMALL, *ROBUST, "cifar_vgg8"])
def test_in_place_activations_do_not_change_the_input_or_break_gradients(name: str, seed: int) -> None:
    model = with_fitted_statistics(create_model(name, 4, 3), torch.rand(4, 3, 16, 16, dtype=torch.float64))
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    kept = x.detach().clone()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    assert torch.equal(x.detach(), kept)
    assert gradient.abs().max() > 0
    step = 1e-6 * gradient / gradient.norm()
    with torch.no_grad():
        change = model(kept + step).square().sum() - model(kept - step).square().sum()
    torch.testing.assert_close(change, 2 * (gradient * step).sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("make", "depths", "rule"),
    [
        (CifarResNet, [9, 18, 28], r"6n \+ 2"),
        (partial(WideResNet, widen_factor=1), [33, 35, 38], r"6n \+ 4"),
        (partial(SwishWideResNet, widen_factor=1), [33, 35, 38], r"6n \+ 4"),
    ],
)
def test_an_impossible_depth_raises(make: Callable[..., nn.Module], depths: list[int], rule: str) -> None:
    for depth in depths:
        with pytest.raises(ValueError, match=rf"{rule}, not {depth}"):
            make(depth=depth)
