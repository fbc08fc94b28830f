"""Wide residual networks for 32×32 images (Zagoruyko & Komodakis 2016), pre-activation, without dropout.

Parameter names are those of the TRADES and official DKL checkpoints (``block1.layer.0.convShortcut.weight`` …).
WRN-d-k has (d − 4)/6 blocks in each of its three groups and widths 16, 16k, 32k, 64k.
"""

import math
from typing import Any, ClassVar

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, pool
from dkl.models.timm_entry import build


def blocks_and_widths(depth: int, widen_factor: int) -> tuple[int, list[int]]:
    """Blocks per group, and the widths of the first convolution and the three groups.

    Raises ValueError if (depth − 4) is not a multiple of 6.
    """
    if (depth - 4) % 6:
        raise ValueError(f"the depth of a wide residual network must be 6n + 4, not {depth}")
    return (depth - 4) // 6, [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]


def initialize(network: nn.Module, head: nn.Linear) -> None:
    """Draw convolution weights from N(0, 2 / (kernel area · output channels)); set the bias of ``head`` to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    nn.init.zeros_(head.bias)


class BasicBlock(nn.Module):
    """BN-ReLU-conv twice, with a 1×1 shortcut from the first activation if the width changes."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, out_planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_planes)
        self.conv2 = conv(out_planes, out_planes, 3)
        self.convShortcut = None  # named as in the checkpoints
        if in_planes != out_planes:
            self.convShortcut = conv(in_planes, out_planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        # In place is safe: nothing else uses the output of a BatchNorm.
        activation = F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(activation)), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(activation)
        return shortcut + self.conv2(out)


class _Group(nn.Module):
    """``blocks`` residual blocks; the first one has the group's stride."""

    def __init__(self, blocks: int, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.layer = block_group(BasicBlock, blocks, in_planes, out_planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-``depth``-``widen_factor``: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]`` in [0, 1].

    Raises ValueError if (depth − 4) is not a multiple of 6.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("block1", "block2", "block3")
    # The sum at the end of a group is normalized and activated by the next group, or before pooling.
    stages_before_activation: ClassVar[tuple[str, ...]] = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")

    def __init__(self, depth: int, widen_factor: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        blocks, widths = blocks_and_widths(depth, widen_factor)
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, widths[0], 3)
        self.block1 = _Group(blocks, widths[0], widths[1], 1)
        self.block2 = _Group(blocks, widths[1], widths[2], 2)
        self.block3 = _Group(blocks, widths[2], widths[3], 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        initialize(self, self.fc)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        out = F.relu(self.bn1(out), inplace=True)
        return self.fc(pool(out))


@register_model
def wrn34_10(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-34-10, the network of Tables 1-3 and 8-12: 46.2 M parameters, no input normalization."""
    return build(WideResNet, pretrained, kwargs, depth=34, widen_factor=10)


@register_model
def wrn34_20(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-34-20: 184.5 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=34, widen_factor=20)


@register_model
def wrn28_10(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-10 with ReLU: 36.5 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=28, widen_factor=10)


@register_model
def wrn28_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-2: 1.47 M parameters, the network of classic semi-supervised learning."""
    return build(WideResNet, pretrained, kwargs, depth=28, widen_factor=2)


@register_model
def wrn16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2: 0.69 M parameters, also a student of the distillation tables."""
    return build(WideResNet, pretrained, kwargs, depth=16, widen_factor=2)


@register_model
def wrn10_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-10-2: 0.30 M parameters, for CPU."""
    return build(WideResNet, pretrained, kwargs, depth=10, widen_factor=2)


@register_model
def wrn10_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-10-1: 0.08 M parameters, for CPU."""
    return build(WideResNet, pretrained, kwargs, depth=10, widen_factor=1)
