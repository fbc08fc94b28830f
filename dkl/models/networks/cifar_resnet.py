"""Post-activation ResNets (He et al. 2016a) for 32×32 images, students and teachers of distillation.

``CifarResNet`` has three thin groups of basic blocks, (d − 2)/6 in each for ResNet-d (section 4.2 of the paper, but
shortcuts that change the shape are projections with BatchNorm). ``FourGroupResNet`` is ImageNet's ResNet-18 or
ResNet-50 with a 3×3 stem at stride 1 and no max-pooling. Parameter names are those of the RepDistiller and mdistiller
checkpoints (``layer2.0.downsample.0.weight`` … and ``layer2.0.shortcut.0.weight`` …).
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models.parts import block_group, conv, initialize_convolutions, pool, register

THIN = (16, 16, 32, 64)
TIMES_4 = (32, 64, 128, 256)
STEM = 64
"""Width of the first convolution with four groups."""


def _projection(in_planes: int, out_planes: int, stride: int) -> nn.Sequential:
    """The shortcut of a post-activation block: 1×1 convolution and BatchNorm if the shape changes, or the identity."""
    if stride == 1 and in_planes == out_planes:
        return nn.Sequential()
    return nn.Sequential(conv(in_planes, out_planes, 1, stride), nn.BatchNorm2d(out_planes))


class BasicBlock(nn.Module):
    """The ReLU of a branch, conv-BN-ReLU-conv-BN, plus the shortcut, which is named last."""

    summed_before_activation: ClassVar[tuple[str, str]] = ("bn2", "downsample")

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.add_module(self.summed_before_activation[1], _projection(in_planes, planes, stride))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(branch + getattr(self, self.summed_before_activation[1])(x), inplace=True)


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


register(
    __name__,
    CifarResNet,
    {
        "cifar_resnet8": {"depth": 8},  # 0.08 M parameters, for CPU
        "cifar_resnet14": {"depth": 14},  # 0.18 M, for CPU
        "cifar_resnet20": {"depth": 20},  # 0.27 M
        "cifar_resnet32": {"depth": 32},  # 0.47 M
        "cifar_resnet44": {"depth": 44},  # 0.66 M
        "cifar_resnet56": {"depth": 56},  # 0.86 M
        "cifar_resnet110": {"depth": 110},  # 1.7 M
        "cifar_resnet8x4": {"depth": 8, "widths": TIMES_4},  # 1.2 M
        "cifar_resnet32x4": {"depth": 32, "widths": TIMES_4},  # 7.4 M
    },
)


class ShortcutBlock(BasicBlock):
    """``BasicBlock`` with the other name of the shortcut."""

    summed_before_activation: ClassVar[tuple[str, str]] = ("bn2", "shortcut")


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolutions, two of them a quarter as wide; ReLU of branch plus shortcut."""

    summed_before_activation: ClassVar[tuple[str, ...]] = ("bn3", "shortcut")

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        middle = planes // 4
        self.conv1 = conv(in_planes, middle, 1)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, planes, 1)
        self.bn3 = nn.BatchNorm2d(planes)
        self.shortcut = _projection(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x), inplace=True)


class FourGroupResNet(nn.Module):
    """Four groups of ``blocks`` with ``widths``: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        blocks: Sequence[int],
        widths: Sequence[int],
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, STEM, 3)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = block_group(block, blocks[0], STEM, widths[0], 1)
        self.layer2 = block_group(block, blocks[1], widths[0], widths[1], 2)
        self.layer3 = block_group(block, blocks[2], widths[1], widths[2], 2)
        self.layer4 = block_group(block, blocks[3], widths[2], widths[3], 2)
        self.linear = nn.Linear(widths[3], num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.linear(pool(out))


register(
    __name__,
    FourGroupResNet,
    {  # 11.2 M and 23.5 M parameters
        "cifar_resnet18": {"block": ShortcutBlock, "blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
        "cifar_resnet50": {"block": Bottleneck, "blocks": (3, 4, 6, 3), "widths": (256, 512, 1024, 2048)},
    },
)
