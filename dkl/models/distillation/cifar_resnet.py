"""Post-activation ResNets for 32×32 images (He et al. 2016a, section 4.2), students and teachers of distillation.

ResNet-d has (d − 2)/6 basic blocks in each of its three groups. Unlike in the paper, shortcuts that change the shape
are projections with BatchNorm. Parameter names are those of the RepDistiller and mdistiller checkpoints
(``layer2.0.downsample.0.weight`` …).
"""

from typing import Any, ClassVar

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, initialize_convolutions, pool, projection
from dkl.models.timm_entry import build

THIN = (16, 16, 32, 64)
TIMES_4 = (32, 64, 128, 256)


class BasicBranch(nn.Module):
    """The residual branch of a basic block: conv-BN-ReLU-conv-BN."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))


class BasicBlock(BasicBranch):
    """Basic block: the ReLU of branch plus shortcut."""

    summed_before_activation: ClassVar[tuple[str, ...]] = ("bn2", "downsample")

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__(in_planes, planes, stride)
        self.downsample = projection(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.downsample(x), inplace=True)


class CifarResNet(nn.Module):
    """ResNet-``depth``: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    ``widths`` are those of the first convolution and the three groups. Raises ValueError if (depth − 2) is not a
    multiple of 6.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int] = THIN, num_classes: int = 10, in_chans: int = 3
    ) -> None:
        super().__init__()
        if (depth - 2) % 6:
            raise ValueError(f"the depth of a ResNet of basic blocks in three groups must be 6n + 2, not {depth}")
        blocks = (depth - 2) // 6
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = block_group(BasicBlock, blocks, widths[0], widths[1], 1)
        self.layer2 = block_group(BasicBlock, blocks, widths[1], widths[2], 2)
        self.layer3 = block_group(BasicBlock, blocks, widths[2], widths[3], 2)
        self.fc = nn.Linear(widths[3], num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(pool(out))


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8: 0.08 M parameters, for CPU."""
    return build(CifarResNet, pretrained, kwargs, depth=8)


@register_model
def cifar_resnet14(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-14: 0.18 M parameters, for CPU."""
    return build(CifarResNet, pretrained, kwargs, depth=14)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20: 0.27 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=20)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32: 0.47 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=32)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44: 0.66 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=44)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56: 0.86 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=56)


@register_model
def cifar_resnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-110: 1.7 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=110)


@register_model
def cifar_resnet8x4(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8 with four times the width: 1.2 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=8, widths=TIMES_4)


@register_model
def cifar_resnet32x4(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32 with four times the width: 7.4 M parameters."""
    return build(CifarResNet, pretrained, kwargs, depth=32, widths=TIMES_4)
