"""ShuffleNetV2 (Ma et al. 2018) at size 1 for 32×32 images, a student of distillation.

The stem is a 1×1 convolution without pooling. Parameter names are those of the RepDistiller and mdistiller checkpoints
(``layer1.0.conv4.weight`` …).
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import channel_shuffle, conv, pool
from dkl.models.timm_entry import build

STEM, LAST = 24, 1024
STAGES = ((3, 116), (7, 232), (3, 464))  # of each stage: units after the one that halves the size, and width


class BasicUnit(nn.Module):
    """Keeps half of the channels and sends the others through 1×1, depthwise 3×3 and 1×1; then shuffles them all."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        half = planes // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        kept, out = x.chunk(2, dim=1)
        out = F.relu(self.bn1(self.conv1(out)), inplace=True)
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)), inplace=True)
        return channel_shuffle(torch.cat([kept, out], dim=1), 2)


class DownUnit(nn.Module):
    """Halves the size. Both branches see all channels: depthwise 3×3, 1×1; and 1×1, depthwise 3×3, 1×1."""

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        half = planes // 2
        self.conv1 = conv(in_planes, in_planes, 3, 2, groups=in_planes)
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv2 = conv(in_planes, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(in_planes, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return channel_shuffle(torch.cat([left, right], dim=1), 2)


class CifarShuffleV2(nn.Module):
    """Three stages of units: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        (units1, width1), (units2, width2), (units3, width3) = STAGES
        self.layer1 = self._stage(units1, STEM, width1)
        self.layer2 = self._stage(units2, width1, width2)
        self.layer3 = self._stage(units3, width2, width3)
        self.conv2 = conv(width3, LAST, 1)
        self.bn2 = nn.BatchNorm2d(LAST)
        self.linear = nn.Linear(LAST, num_classes)

    @staticmethod
    def _stage(units: int, in_planes: int, planes: int) -> nn.Sequential:
        return nn.Sequential(DownUnit(in_planes, planes), *(BasicUnit(planes) for _ in range(units)))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(pool(F.relu(self.bn2(self.conv2(out)), inplace=True)))


@register_model
def cifar_shufflev2(pretrained: bool = False, **kwargs: Any) -> CifarShuffleV2:
    """ShuffleNetV2 at size 1 for 32×32 images: 1.3 M parameters."""
    return build(CifarShuffleV2, pretrained, kwargs)
