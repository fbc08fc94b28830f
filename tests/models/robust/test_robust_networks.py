"""Networks of adversarial training have the published sizes and compute the equations of their papers."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models import create_model
from dkl.models.networks.preact_resnet import SwishPreActResNet
from dkl.models.networks.wide_resnet import SwishWideResNet, WideResNet
from tests.models.common import count, with_statistics

Count = Callable[[int, int], int]


def wide_resnet_size(depth: int, widen: int) -> Count:
    """Parameters of WRN-depth-widen by (classes, channels): no biases, two BNs per block, one at the end."""

    def size(classes: int, channels: int) -> int:
        total, width = 9 * channels * 16, 16
        for group in (16 * widen, 32 * widen, 64 * widen):
            for _ in range((depth - 4) // 6):
                total += 2 * width + 9 * width * group + 2 * group + 9 * group * group
                total += width * group if width != group else 0
                width = group
        return total + 2 * width + (width + 1) * classes

    return size


def preact_resnet18_size(first: int) -> Count:
    """Parameters of an 18-layer pre-activation ResNet whose groups are first, 2·first, 4·first, 8·first wide."""

    def size(classes: int, channels: int) -> int:
        total, width = 9 * channels * first, first
        for group in (first, 2 * first, 4 * first, 8 * first):
            for _ in range(2):
                total += 2 * width + 9 * width * group + 2 * group + 9 * group * group
                total += width * group if width != group else 0
                width = group
        return total + 2 * width + (width + 1) * classes

    return size


def swish_preact_resnet18_size(classes: int, channels: int) -> int:
    """Parameters of ``preact_resnet18``, whose three shortcuts are 3×3 here and not 1×1."""
    return preact_resnet18_size(64)(classes, channels) + 8 * (64 * 128 + 128 * 256 + 256 * 512)


def small_cnn_size(classes: int, channels: int) -> int:
    return (9 * channels + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 32 + (32 * 16 + 1) * classes


SIZES: dict[str, Count] = {
    "wrn34_10": wide_resnet_size(34, 10),
    "wrn34_20": wide_resnet_size(34, 20),
    "wrn28_10": wide_resnet_size(28, 10),
    "wrn16_2": wide_resnet_size(16, 2),
    "wrn10_2": wide_resnet_size(10, 2),
    "wrn28_10_swish": wide_resnet_size(28, 10),
    "wrn70_16_swish": wide_resnet_size(70, 16),
    "wrn10_2_swish": wide_resnet_size(10, 2),
    "preact_resnet18": preact_resnet18_size(64),
    "preact_resnet18_w16": preact_resnet18_size(16),
    "preact_resnet18_swish": swish_preact_resnet18_size,
    "small_cnn": small_cnn_size,
}
PUBLISHED = {  # parameters at 10 and 100 classes
    ("wrn34_10", 10): 46_160_474,
    ("wrn34_10", 100): 46_218_164,
    ("wrn28_10", 10): 36_479_194,
    ("wrn28_10_swish", 10): 36_479_194,
    ("wrn28_10_swish", 100): 36_536_884,
    ("wrn16_2", 100): 703_284,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_follow_the_equations_and_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        for classes, channels in ((10, 3), (100, 3), (10, 1)):
            size = count(create_model(name, classes, channels))
            assert size == SIZES[name](classes, channels)
            if channels == 3:
                assert size == PUBLISHED.get((name, classes), size)


class Functional:
    """The blocks of a pre-activation network, computed from a state_dict with ``torch.nn.functional`` only."""

    def __init__(self, model: nn.Module, shortcut: str) -> None:
        self.state = model.state_dict()
        self.shortcut = shortcut

    def bn_relu(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        """The shortcut is the identity if shapes agree, otherwise the projection of the *activated* input."""
        active = self.bn_relu(x, f"{name}.bn1")
        out = F.conv2d(active, self.state[f"{name}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(self.bn_relu(out, f"{name}.bn2"), self.state[f"{name}.conv2.weight"], padding=1)
        projection = self.state.get(f"{name}.{self.shortcut}.weight")
        return out + (x if projection is None else F.conv2d(active, projection, stride=stride))

    def head(self, x: Tensor, bn: str, fc: str) -> Tensor:
        pooled = self.bn_relu(x, bn).mean((2, 3))
        return pooled @ self.state[f"{fc}.weight"].T + self.state[f"{fc}.bias"]


@pytest.mark.parametrize(("name", "blocks"), [("wrn10_2", 1), ("wrn16_2", 2)])
def test_wide_resnet_computes_its_equations(name: str, blocks: int) -> None:
    model = with_statistics(create_model(name, 7))
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    reference = Functional(model, "convShortcut")
    out = F.conv2d(x, reference.state["conv1.weight"], padding=1)
    for group, stride in ((1, 1), (2, 2), (3, 2)):
        for block in range(blocks):
            out = reference.block(out, f"block{group}.layer.{block}", stride if block == 0 else 1)
    assert out.shape[2:] == (8, 8)
    torch.testing.assert_close(model(x), reference.head(out, "bn1", "fc"), rtol=1e-9, atol=1e-9)


def test_preact_resnet_computes_its_equations() -> None:
    model = with_statistics(create_model("preact_resnet18_w16", 7))
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    reference = Functional(model, "shortcut.0")
    out = F.conv2d(x, reference.state["conv1.weight"], padding=1)
    for group, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        out = reference.block(out, f"layer{group}.0", stride)
        out = reference.block(out, f"layer{group}.1", 1)
    torch.testing.assert_close(model(x), reference.head(out, "bn", "linear"), rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("name", ["wrn10_2", "wrn10_2_swish", "preact_resnet18_w16", "small_cnn"])
def test_in_place_activations_do_not_change_the_input_or_break_gradients(name: str) -> None:
    model = with_statistics(create_model(name, 4))
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    kept = x.detach().clone()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    assert torch.equal(x.detach(), kept)
    step = 1e-6 * torch.randn_like(kept)
    with torch.no_grad():
        change = model(kept + step).square().sum() - model(kept - step).square().sum()
    torch.testing.assert_close(change, 2 * (gradient * step).sum(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(("network", "head"), [(WideResNet, "fc"), (SwishWideResNet, "logits")])
def test_wide_resnet_is_initialized_as_in_the_paper(network: type[nn.Module], head: str) -> None:
    model = network(16, 4)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            tolerance = 4 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert not model.get_submodule(head).bias.any()


@pytest.mark.parametrize("network", [WideResNet, SwishWideResNet])
@pytest.mark.parametrize("depth", [33, 35, 38])
def test_an_impossible_depth_raises(network: type[nn.Module], depth: int) -> None:
    with pytest.raises(ValueError, match=r"6n \+ 4"):
        network(depth, 1)
