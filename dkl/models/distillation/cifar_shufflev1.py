"""ShuffleNet (Zhang et al. 2018) with three groups for 32×32 images, a student of distillation.

The stem is a 1×1 convolution without pooling, and ReLU also follows the depthwise convolution. Parameter names are
those of the RepDistiller and mdistiller checkpoints (``layer1.0.conv1.weight`` …).
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, channel_shuffle, conv, pool
from dkl.models.timm_entry import build

STEM, GROUPS = 24, 3
STAGES = ((4, 240), (8, 480), (4, 960))  # blocks and width of each stage


class ShuffleUnit(nn.Module):
    """Grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; the input is added, or pooled and concatenated at stride 2."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.down = stride == 2
        branch = planes - in_planes if self.down else planes  # the pooled input makes up the other channels
        middle = branch // 4
        self.first_groups = 1 if in_planes == STEM else GROUPS  # the stem has too few channels to divide
        self.conv1 = conv(in_planes, middle, 1, groups=self.first_groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, branch, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(branch)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = channel_shuffle(out, self.first_groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        if self.down:
            return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1), inplace=True)
        return F.relu(out + x, inplace=True)


class CifarShuffleV1(nn.Module):
    """Three stages of units: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        (blocks1, width1), (blocks2, width2), (blocks3, width3) = STAGES
        self.layer1 = block_group(ShuffleUnit, blocks1, STEM, width1, 2)
        self.layer2 = block_group(ShuffleUnit, blocks2, width1, width2, 2)
        self.layer3 = block_group(ShuffleUnit, blocks3, width2, width3, 2)
        self.linear = nn.Linear(width3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.linear(pool(self.layer3(self.layer2(self.layer1(out)))))


@register_model
def cifar_shufflev1(pretrained: bool = False, **kwargs: Any) -> CifarShuffleV1:
    """ShuffleNet with three groups for 32×32 images: 0.86 M parameters."""
    return build(CifarShuffleV1, pretrained, kwargs)
