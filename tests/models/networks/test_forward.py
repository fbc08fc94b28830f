"""Networks compute their equations with tensors of the names and sizes of the public checkpoints.

The equations are plain functions of the state_dict in float64, which read every tensor by its name. Poolings have the
fixed sizes of the original networks on 32×32 images.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.models import create_model
from tests.models.common import count, with_fitted_statistics

State = dict[str, Tensor]
CLASSES = 7


class Read(State):
    """A state_dict that keeps the names of the tensors that were read."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str) -> Tensor | None:  # type: ignore[override]
        return self[name] if name in self else None  # noqa: SIM401


class Functions:
    """Layers, called by the names of their tensors."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=groups)

    def bn(self, x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            self.state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def step(self, x: Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1) -> Tensor:
        return self.bn(self.conv(x, conv, stride, groups), bn).clamp(min=0)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x.flatten(1) @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def members(self, prefix: str) -> int:
        """Number of numbered modules under ``prefix``."""
        return len({key.removeprefix(prefix).split(".")[0] for key in self.state if key.startswith(prefix)})


def stride_of(group: int, block: int) -> int:
    """Groups count from 1; all except the first halve the size in their first block."""
    return 2 if group > 1 and block == 0 else 1


def residual(f: Functions, x: Tensor, block: str, stride: int, shortcut: str) -> Tensor:
    """A post-activation block, a bottleneck if it has a third convolution."""
    if f"{block}.conv3.weight" in f.state:
        out = f.step(x, f"{block}.conv1", f"{block}.bn1")
        out = f.step(out, f"{block}.conv2", f"{block}.bn2", stride)
        out = f.bn(f.conv(out, f"{block}.conv3"), f"{block}.bn3")
    else:
        out = f.step(x, f"{block}.conv1", f"{block}.bn1", stride)
        out = f.bn(f.conv(out, f"{block}.conv2"), f"{block}.bn2")
    if f"{block}.{shortcut}.0.weight" in f.state:
        x = f.bn(f.conv(x, f"{block}.{shortcut}.0", stride), f"{block}.{shortcut}.1")
    return (out + x).clamp(min=0)


def resnet(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    out = f.step(x, "conv1", "bn1")
    for group in (1, 2, 3):
        for block in range(f.members(f"layer{group}.")):
            out = residual(f, out, f"layer{group}.{block}", stride_of(group, block), "downsample")
    return f.linear(F.avg_pool2d(out, 8), "fc")


def imagenet_resnet(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    out = f.step(x, "conv1", "bn1")
    for group in (1, 2, 3, 4):
        for block in range(f.members(f"layer{group}.")):
            out = residual(f, out, f"layer{group}.{block}", stride_of(group, block), "shortcut")
    return f.linear(out.mean((2, 3)), "linear")


def wrn(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    out = f.conv(x, "conv1")
    for group in (1, 2, 3):
        for index in range(f.members(f"block{group}.layer.")):
            block, stride = f"block{group}.layer.{index}", stride_of(group, index)
            active = f.bn(out, f"{block}.bn1").clamp(min=0)
            inner = f.conv(f.step(active, f"{block}.conv1", f"{block}.bn2", stride), f"{block}.conv2")
            projected = f"{block}.convShortcut.weight" in state
            out = inner + (f.conv(active, f"{block}.convShortcut", stride) if projected else out)
    return f.linear(F.avg_pool2d(f.bn(out, "bn1").clamp(min=0), 8), "fc")


def preact_resnet(state: State, x: Tensor) -> Tensor:
    """The shortcut is the identity if shapes agree, otherwise the projection of the *activated* input."""
    f = Functions(state)
    out = f.conv(x, "conv1")
    for group in (1, 2, 3, 4):
        for index in (0, 1):
            block, stride = f"layer{group}.{index}", stride_of(group, index)
            active = f.bn(out, f"{block}.bn1").clamp(min=0)
            inner = f.conv(f.step(active, f"{block}.conv1", f"{block}.bn2", stride), f"{block}.conv2")
            projected = f"{block}.shortcut.0.weight" in state
            out = inner + (f.conv(active, f"{block}.shortcut.0", stride) if projected else out)
    return f.linear(f.bn(out, "bn").clamp(min=0).mean((2, 3)), "linear")


def vgg(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    for block in range(5):
        for index in range(f.members(f"block{block}.") // 2):
            x = f.step(x, f"block{block}.{3 * index}", f"block{block}.{3 * index + 1}")
        if block < 3:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    return f.linear(x.mean((2, 3)), "classifier")


def mobilenetv2(state: State, x: Tensor) -> Tensor:
    """A block adds its input unless it is the first of its group, which changes the width."""
    f = Functions(state)
    x = f.step(x, "conv1.0", "conv1.1", 2)
    for group, stride in enumerate((1, 1, 2, 2, 1, 2, 1)):
        for index in range(f.members(f"blocks.{group}.")):
            name = f"blocks.{group}.{index}.conv"
            out = f.step(x, f"{name}.0", f"{name}.1")
            out = f.step(out, f"{name}.3", f"{name}.4", stride if index == 0 else 1, groups=out.shape[1])
            out = f.bn(f.conv(out, f"{name}.6"), f"{name}.7")
            x = out if index == 0 else x + out
    x = F.avg_pool2d(f.step(x, "conv2.0", "conv2.1"), 2)
    return f.linear(x, "classifier.0")


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel c of the result is channel (c mod groups) · C/groups + c // groups of ``x``."""
    width = x.shape[1] // groups
    return torch.stack([x[:, (c % groups) * width + c // groups] for c in range(x.shape[1])], dim=1)


def shufflev1(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    x = f.step(x, "conv1", "bn1")
    for layer in (1, 2, 3):
        for index in range(f.members(f"layer{layer}.")):
            block = f"layer{layer}.{index}"
            groups, stride = (1 if (layer, index) == (1, 0) else 3), (2 if index == 0 else 1)
            out = shuffled(f.step(x, f"{block}.conv1", f"{block}.bn1", groups=groups), groups)
            out = f.step(out, f"{block}.conv2", f"{block}.bn2", stride, groups=out.shape[1])
            out = f.bn(f.conv(out, f"{block}.conv3", groups=3), f"{block}.bn3")
            if index == 0:  # the zero padding counts in the mean of nine
                pooled = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2).mean((4, 5))
                x = torch.cat([out, pooled], dim=1).clamp(min=0)
            else:
                x = (x + out).clamp(min=0)
    return f.linear(F.avg_pool2d(x, 4), "linear")


def shufflev2(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    x = f.step(x, "conv1", "bn1")
    for layer in (1, 2, 3):
        for index in range(f.members(f"layer{layer}.")):
            block = f"layer{layer}.{index}"
            if index == 0:
                left = f.bn(f.conv(x, f"{block}.conv1", 2, groups=x.shape[1]), f"{block}.bn1")
                left = f.step(left, f"{block}.conv2", f"{block}.bn2")
                out = f.step(x, f"{block}.conv3", f"{block}.bn3")
                out = f.bn(f.conv(out, f"{block}.conv4", 2, groups=out.shape[1]), f"{block}.bn4")
                out = f.step(out, f"{block}.conv5", f"{block}.bn5")
            else:
                half = x.shape[1] // 2
                left = x[:, :half]
                out = f.step(x[:, half:], f"{block}.conv1", f"{block}.bn1")
                out = f.bn(f.conv(out, f"{block}.conv2", groups=half), f"{block}.bn2")
                out = f.step(out, f"{block}.conv3", f"{block}.bn3")
            x = shuffled(torch.cat([left, out], dim=1), 2)
    return f.linear(F.avg_pool2d(f.step(x, "conv2", "bn2"), 4), "linear")


def small_cnn(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    for index, stride in ((0, 1), (2, 2), (4, 1)):
        x = f.conv(x, f"features.{index}", stride).clamp(min=0)
    return f.linear(F.adaptive_avg_pool2d(x, 4), "classifier")


def mobilenetv1(state: State, x: Tensor) -> Tensor:
    f = Functions(state)
    x = f.step(x, "model.0.0", "model.0.1", 2)
    for index in range(1, 14):
        stride = 2 if index in (2, 4, 6, 12) else 1
        x = f.step(x, f"model.{index}.0", f"model.{index}.1", stride, groups=x.shape[1])
        x = f.step(x, f"model.{index}.3", f"model.{index}.4")
    return f.linear(x.mean((2, 3)), "fc")


ORACLES: list[tuple[str, Callable[[State, Tensor], Tensor], int]] = [
    ("cifar_resnet14", resnet, 32),
    ("cifar_resnet8x4", resnet, 32),
    ("cifar_resnet18", imagenet_resnet, 16),
    ("cifar_resnet50", imagenet_resnet, 16),
    ("cifar_wrn_16_1", wrn, 32),
    ("cifar_wrn_16_2", wrn, 32),
    ("wrn10_2", wrn, 32),
    ("preact_resnet18_w16", preact_resnet, 32),
    ("cifar_vgg13", vgg, 32),
    ("cifar_mobilenetv2", mobilenetv2, 32),
    ("cifar_shufflev1", shufflev1, 32),
    ("cifar_shufflev2", shufflev2, 32),
    ("mobilenetv1", mobilenetv1, 64),
    ("small_cnn", small_cnn, 32),
]


PARAMETERS = {  # those of the checkpoints, of 100 classes, and of mobilenetv1 of 1000
    "cifar_resnet8": 83_892,
    "cifar_resnet14": 181_108,
    "cifar_resnet20": 278_324,
    "cifar_resnet32": 472_756,
    "cifar_resnet44": 667_188,
    "cifar_resnet56": 861_620,
    "cifar_resnet110": 1_736_564,
    "cifar_resnet8x4": 1_233_540,
    "cifar_resnet32x4": 7_433_860,
    "cifar_resnet18": 11_220_132,
    "cifar_resnet50": 23_705_252,
    "cifar_wrn_16_1": 180_916,
    "cifar_wrn_16_2": 703_284,
    "cifar_wrn_40_1": 569_780,
    "cifar_wrn_40_2": 2_255_156,
    "wrn34_10": 46_218_164,
    "wrn34_20": 184_646_964,
    "wrn28_10": 36_536_884,
    "wrn16_2": 703_284,
    "wrn10_2": 315_316,
    "wrn28_10_swish": 36_536_884,
    "wrn70_16_swish": 266_888_756,
    "wrn10_2_swish": 315_316,
    "preact_resnet18": 11_218_340,
    "preact_resnet18_w16": 712_628,
    "preact_resnet18_swish": 12_594_596,
    "small_cnn": 65_636,
    "cifar_vgg8": 3_965_028,
    "cifar_vgg11": 9_277_284,
    "cifar_vgg13": 9_462_180,
    "cifar_vgg16": 14_774_436,
    "cifar_vgg19": 20_086_692,
    "cifar_mobilenetv2": 812_836,
    "cifar_shufflev1": 949_258,
    "cifar_shufflev2": 1_355_528,
    "mobilenetv1": 4_231_976,
}


@pytest.mark.parametrize(("name", "oracle", "size"), ORACLES, ids=[name for name, _, _ in ORACLES])
def test_every_network_computes_its_equations(
    name: str, oracle: Callable[[State, Tensor], Tensor], size: int, seed: int
) -> None:
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    model = with_fitted_statistics(create_model(name, CLASSES), images)
    x = 3 * torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        logits, expected = model(x), oracle(state := Read(model.state_dict()), x)
    assert state.names == {name for name in state if not name.endswith("num_batches_tracked")}
    assert (logits[0] - logits[1]).abs().max() > 1e-2 * logits.abs().max()
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_mobilenetv1_reduces_an_imagenet_image_to_seven_by_seven() -> None:
    with torch.device("meta"):
        features = create_model("mobilenetv1", 1000).get_submodule("model")(torch.empty(1, 3, 224, 224))
    assert features.shape == (1, 1024, 7, 7)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        *((name, 1000 if name == "mobilenetv1" else 100, parameters) for name, parameters in PARAMETERS.items()),
        *(("wrn34_10", 10, 46_160_474), ("wrn28_10", 10, 36_479_194), ("wrn28_10_swish", 10, 36_479_194)),
    ],
)
def test_sizes_are_the_published_ones(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(create_model(name, classes, in_chans=3)) == parameters
