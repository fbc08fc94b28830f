"""Wide residual networks with SiLU (Gowal et al. 2020), used for adversarial training with synthetic data.

They differ from ``WideResNet`` in the activation, in BatchNorm's momentum of 0.01, and in the padding of 3×3
convolutions at stride 2. This padding is TensorFlow's "SAME": for even sizes, one row and column of zeros at the
bottom and right. Parameter names are those of the DM-Improves-AT and RobustBench checkpoints
(``layer.0.block.0.batchnorm_0.weight`` …). Those networks normalize their input; here
``create_model(mean=…, std=…)`` does.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import create_conv2d
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, pool
from dkl.models.robust.wide_resnet import blocks_and_widths, initialize
from dkl.models.timm_entry import build

MOMENTUM = 0.01


class SwishBlock(nn.Module):
    """BN-SiLU-conv twice, with a 1×1 shortcut from the first activation if the width changes."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(in_planes, momentum=MOMENTUM)
        self.conv_0 = create_conv2d(in_planes, out_planes, 3, stride=stride, padding="same", bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(out_planes, momentum=MOMENTUM)
        self.conv_1 = conv(out_planes, out_planes, 3)
        self.shortcut = None
        if in_planes != out_planes:
            self.shortcut = conv(in_planes, out_planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activation = F.silu(self.batchnorm_0(x))
        out = F.silu(self.batchnorm_1(self.conv_0(activation)))
        shortcut = x if self.shortcut is None else self.shortcut(activation)
        return shortcut + self.conv_1(out)


class _Group(nn.Module):
    """``blocks`` residual blocks; the first one has the group's stride."""

    def __init__(self, blocks: int, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.block = block_group(SwishBlock, blocks, in_planes, out_planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class SwishWideResNet(nn.Module):
    """WRN-``depth``-``widen_factor`` with SiLU: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    Raises ValueError if (depth − 4) is not a multiple of 6.
    """

    def __init__(self, depth: int, widen_factor: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        blocks, widths = blocks_and_widths(depth, widen_factor)
        self.num_classes = num_classes
        self.init_conv = conv(in_chans, widths[0], 3)
        self.layer = nn.Sequential(
            _Group(blocks, widths[0], widths[1], 1),
            _Group(blocks, widths[1], widths[2], 2),
            _Group(blocks, widths[2], widths[3], 2),
        )
        self.batchnorm = nn.BatchNorm2d(widths[3], momentum=MOMENTUM)
        self.logits = nn.Linear(widths[3], num_classes)
        initialize(self, self.logits)

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self.batchnorm(self.layer(self.init_conv(x))))
        return self.logits(pool(out))


@register_model
def wrn28_10_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-28-10 with SiLU, the network of the synthetic-data rows of Tables 2 and 3: 36.5 M parameters."""
    return build(SwishWideResNet, pretrained, kwargs, depth=28, widen_factor=10)


@register_model
def wrn70_16_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-70-16 with SiLU: 266.8 M parameters."""
    return build(SwishWideResNet, pretrained, kwargs, depth=70, widen_factor=16)


@register_model
def wrn34_10_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-34-10 with SiLU: 46.2 M parameters."""
    return build(SwishWideResNet, pretrained, kwargs, depth=34, widen_factor=10)


@register_model
def wrn34_20_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-34-20 with SiLU: 184.5 M parameters."""
    return build(SwishWideResNet, pretrained, kwargs, depth=34, widen_factor=20)


@register_model
def wrn106_16_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-106-16 with SiLU: 415.5 M parameters."""
    return build(SwishWideResNet, pretrained, kwargs, depth=106, widen_factor=16)


@register_model
def wrn10_2_swish(pretrained: bool = False, **kwargs: Any) -> SwishWideResNet:
    """WRN-10-2 with SiLU: 0.30 M parameters, for CPU."""
    return build(SwishWideResNet, pretrained, kwargs, depth=10, widen_factor=2)
