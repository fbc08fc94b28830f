"""Residual networks with SiLU: their equations, padding, BatchNorm and normalization."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from dkl.config import compose_config
from dkl.models import create_model
from dkl.models.networks.preact_resnet import SwishPreActResNet
from dkl.models.networks.wide_resnet import SwishWideResNet
from tests.models.common import with_statistics

Pad = Callable[[Tensor], Tensor]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def bottom_right(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def all_around(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1))


def forward(
    state: dict[str, Tensor], x: Tensor, blocks: int = 1, pads: tuple[Pad, Pad] = (bottom_right, bottom_right)
) -> Tensor:
    """The network as a function of its state_dict; ``pads`` of groups 1 and 2."""

    def bn_silu(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        out = F.batch_norm(x, mean, var, weight, bias, eps=1e-5)
        return out / (1 + (-out).exp())

    out = F.conv2d(all_around(x), state["init_conv.weight"])
    for group in range(3):
        for block in range(blocks):
            name = f"layer.{group}.block.{block}"
            active = bn_silu(out, f"{name}.batchnorm_0")
            stride = 2 if block == 0 and group > 0 else 1
            padded = all_around(active) if stride == 1 else pads[group - 1](active)
            inner = bn_silu(F.conv2d(padded, state[f"{name}.conv_0.weight"], stride=stride), f"{name}.batchnorm_1")
            if block == 0:
                projected = active[:, :, ::stride, ::stride]
                out = torch.einsum("oi,bihw->bohw", state[f"{name}.shortcut.weight"][:, :, 0, 0], projected)
            out = out + F.conv2d(all_around(inner), state[f"{name}.conv_1.weight"])
    pooled = bn_silu(out, "batchnorm").mean((2, 3))
    return F.linear(pooled, state["logits.weight"], state["logits.bias"])


@pytest.fixture
def network(seed: int) -> nn.Module:
    return with_statistics(create_model("wrn10_2_swish", 7))


@pytest.fixture
def images(seed: int) -> Tensor:
    return torch.rand(2, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("blocks", [1, 2])
def test_it_computes_its_equations(blocks: int, images: Tensor) -> None:
    network = with_statistics(SwishWideResNet(4 + 6 * blocks, 2, num_classes=7))
    torch.testing.assert_close(network(images), forward(network.state_dict(), images, blocks), rtol=1e-10, atol=1e-10)


def test_odd_sizes_are_padded_all_around(network: nn.Module) -> None:
    images = torch.rand(2, 3, 14, 14, dtype=torch.float64)  # 14 → 7 → 4
    reference = forward(network.state_dict(), images, pads=(bottom_right, all_around))
    torch.testing.assert_close(network(images), reference, rtol=1e-10, atol=1e-10)


def test_statistics_have_a_momentum_of_one_hundredth(images: Tensor) -> None:
    network = create_model("wrn10_2_swish", 7).double().train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.momentum, norm.eps) for norm in norms] == [(0.01, 1e-5)] * 7
    network(images)
    stem = F.conv2d(images, network.state_dict()["init_conv.weight"], padding=1)
    first = network.get_submodule("layer.0.block.0.batchnorm_0")
    torch.testing.assert_close(first.running_mean, 0.01 * stem.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, 0.99 + 0.01 * stem.transpose(0, 1).flatten(1).var(1))


def test_the_configuration_passes_the_constants_of_the_data_to_the_model() -> None:
    words = ["model=wrn10_2_swish", "data=cifar10", f"data.mean={list(MEAN)}", f"data.std={list(STD)}"]
    network = instantiate(compose_config("train", words).model)
    torch.testing.assert_close(network.get_buffer("input_mean").flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(network.get_buffer("input_std").flatten(), torch.tensor(STD))
    digits = instantiate(compose_config("train", ["model=wrn10_2_swish", "data=digits"]).model)
    assert "input_mean" not in dict(digits.named_buffers())


def test_preact_resnet_with_silu_computes_its_equations() -> None:
    """Shortcuts convolve the raw input, and stride 2 pads at the bottom and right, as TensorFlow's SAME does."""
    model = with_statistics(SwishPreActResNet(width=4, num_classes=7))
    state, x = model.state_dict(), torch.rand(2, 3, 32, 32, dtype=torch.float64)

    def bn_silu(x: Tensor, name: str) -> Tensor:
        values = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        y = F.batch_norm(x, *values)
        return y * y.sigmoid()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)), state[f"{name}.weight"], stride=stride)

    out = conv(x, "conv_2d")
    for layer, stride in enumerate((1, 2, 2, 2)):
        for block in range(2):
            name, step = f"layer_{layer}.{block}", stride if block == 0 else 1
            inner = conv(bn_silu(out, f"{name}.batchnorm_0"), f"{name}.conv_2d_1", step)
            inner = conv(bn_silu(inner, f"{name}.batchnorm_1"), f"{name}.conv_2d_2")
            out = inner + (conv(out, f"{name}.shortcut", step) if step == 2 else out)
    pooled = bn_silu(out, "batchnorm").mean((2, 3))
    expected = pooled @ state["logits.weight"].T + state["logits.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
