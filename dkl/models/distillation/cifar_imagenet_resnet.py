"""ImageNet's ResNet-18 and ResNet-50 (He et al. 2016a) on 32×32 images: a 3×3 stem at stride 1, no max-pooling.

The 3×3 convolution of a bottleneck has its stride. Parameter names are those of the RepDistiller and mdistiller
checkpoints (``layer2.0.shortcut.0.weight`` …).
"""

from typing import Any, ClassVar

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.distillation.cifar_resnet import BasicBranch
from dkl.models.layers import block_group, conv, initialize_convolutions, pool, projection
from dkl.models.timm_entry import build

STEM = 64


class BasicBlock(BasicBranch):
    """Basic block: the ReLU of branch plus shortcut."""

    summed_before_activation: ClassVar[tuple[str, ...]] = ("bn2", "shortcut")

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__(in_planes, planes, stride)
        self.shortcut = projection(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with BatchNorm, the first two a quarter as wide; ReLU after adding the shortcut."""

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
        self.shortcut = projection(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x), inplace=True)


class FourGroupResNet(nn.Module):
    """Four groups of ``blocks`` with ``widths``: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        widths: tuple[int, int, int, int],
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


@register_model
def cifar_resnet18(pretrained: bool = False, **kwargs: Any) -> FourGroupResNet:
    """ResNet-18 for 32×32 images: 11.2 M parameters."""
    return build(FourGroupResNet, pretrained, kwargs, block=BasicBlock, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512))


@register_model
def cifar_resnet50(pretrained: bool = False, **kwargs: Any) -> FourGroupResNet:
    """ResNet-50 for 32×32 images: 23.5 M parameters."""
    return build(
        FourGroupResNet, pretrained, kwargs, block=Bottleneck, blocks=(3, 4, 6, 3), widths=(256, 512, 1024, 2048)
    )
