"""MobileNets and ShuffleNets, students of distillation, built of depthwise separable convolutions.

``MobileNetV1`` takes ImageNet's images and the others 32×32. Where they differ from their papers, they follow
RepDistiller and mdistiller, whose checkpoints have these parameter names.
"""

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models.parts import block_group, conv, initialize_convolutions, initialize_head, pool, register

V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""MobileNet's blocks: width and stride."""

V2_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2's groups: expansion, width, blocks, stride of the first block."""

MOBILE_STEM, MOBILE_LAST = 32, 1280
SHUFFLE_STEM, SHUFFLE_LAST = 24, 1024

SHUFFLE_GROUPS = 3
"""Groups of ShuffleNet's 1×1 convolutions."""


def _conv_bn_relu(
    in_planes: int, out_planes: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """A convolution without bias, its BatchNorm and ReLU, to be unpacked into one flat ``nn.Sequential``."""
    return conv(in_planes, out_planes, kernel, stride, groups), nn.BatchNorm2d(out_planes), nn.ReLU(inplace=True)


class MobileNetV1(nn.Module):
    """MobileNet (Howard et al. 2017): ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``, 224×224 in tables.

    Unlike timm's ``mobilenetv1_100`` it uses plain ReLU.
    """

    # the last block of each image size
    feature_stages: ClassVar[tuple[str, ...]] = ("model.3", "model.5", "model.11", "model.13")

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.model = nn.Sequential(nn.Sequential(*_conv_bn_relu(in_chans, MOBILE_STEM, 3, 2)))
        planes = MOBILE_STEM
        for width, stride in V1_BLOCKS:
            depthwise = _conv_bn_relu(planes, planes, 3, stride, groups=planes)
            self.model.append(nn.Sequential(*depthwise, *_conv_bn_relu(planes, width, 1)))
            planes = width
        self.fc = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pool(self.model(x)))


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise convolution, linear 1×1 projection; the input is added if the shape stays."""

    def __init__(self, in_planes: int, planes: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_planes * expansion
        self.residual = stride == 1 and in_planes == planes
        self.conv = nn.Sequential(
            *_conv_bn_relu(in_planes, middle, 1),
            *_conv_bn_relu(middle, middle, 3, stride, groups=middle),
            conv(middle, planes, 1),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018): ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    All published widths except the last are multiplied by ``width`` and not rounded to multiples of 8. The activation
    is ReLU, not ReLU6. The second group (24 channels at full width) keeps the image size, which the paper halves:
    32 pixels become 2.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")

    def __init__(self, width: float = 0.5, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        planes = int(MOBILE_STEM * width)
        self.conv1 = nn.Sequential(*_conv_bn_relu(in_chans, planes, 3, 2))
        self.blocks = nn.Sequential()
        for expansion, published, blocks, stride in V2_GROUPS:
            before, planes = planes, int(published * width)
            self.blocks.append(
                block_group(partial(InvertedResidual, expansion=expansion), blocks, before, planes, stride)
            )
        self.conv2 = nn.Sequential(*_conv_bn_relu(planes, MOBILE_LAST, 1))
        head = nn.Linear(MOBILE_LAST, num_classes)
        self.classifier = nn.Sequential(head)
        initialize_convolutions(self)
        initialize_head(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(pool(self.conv2(self.blocks(self.conv1(x)))))


class MobileBlock(nn.Module):
    """``InvertedResidual`` whose input is always added at stride 1, through a 1×1 convolution if the width changes."""

    def __init__(self, in_planes: int, planes: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_planes * expansion
        self.residual = stride == 1
        self.conv1, self.bn1 = conv(in_planes, middle, 1), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = conv(middle, middle, 3, stride, groups=middle), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = conv(middle, planes, 1), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if self.residual and in_planes != planes:
            self.shortcut = nn.Sequential(conv(in_planes, planes, 1), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)), inplace=True)))
        return out + self.shortcut(x) if self.residual else out


class WideMobileNetV2(nn.Module):
    """MobileNetV2 at full width for small images, the student of robust distillation: ``logits[B, num_classes]``.

    The stem and the second group keep the image size: 32 pixels become 4. Names are those of kuangliu/pytorch-cifar.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1, self.bn1 = conv(in_chans, MOBILE_STEM, 3), nn.BatchNorm2d(MOBILE_STEM)
        self.layers, planes = nn.Sequential(), MOBILE_STEM
        for group, (expansion, width, blocks, stride) in enumerate(V2_GROUPS):
            for block in range(blocks):
                step = stride if block == 0 and group != 1 else 1
                self.layers.append(MobileBlock(planes, width, step, expansion))
                planes = width
        self.conv2, self.bn2 = conv(planes, MOBILE_LAST, 1), nn.BatchNorm2d(MOBILE_LAST)
        self.linear = nn.Linear(MOBILE_LAST, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.linear(pool(F.relu(self.bn2(self.conv2(out)), inplace=True)))


def _shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups: 0 1 2 | 3 4 5 becomes 0 3 1 4 2 5."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; the input is added, or pooled and concatenated at stride 2."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.down = stride == 2
        branch = planes - in_planes if self.down else planes  # the pooled input makes up the other channels
        middle = branch // 4
        # The stem has too few channels to divide.
        self.first_groups = 1 if in_planes == SHUFFLE_STEM else SHUFFLE_GROUPS
        self.conv1 = conv(in_planes, middle, 1, groups=self.first_groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, branch, 1, groups=SHUFFLE_GROUPS)
        self.bn3 = nn.BatchNorm2d(branch)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = _shuffle(out, self.first_groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        if self.down:
            return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1), inplace=True)
        return F.relu(out + x, inplace=True)


class CifarShuffleV1(nn.Module):
    """ShuffleNet (Zhang et al. 2018) with three groups: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    The stem is a 1×1 convolution without pooling, and ReLU also follows the depthwise convolution.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, SHUFFLE_STEM, 1)
        self.bn1 = nn.BatchNorm2d(SHUFFLE_STEM)
        self.layer1 = block_group(ShuffleUnit, 4, SHUFFLE_STEM, 240, 2)
        self.layer2 = block_group(ShuffleUnit, 8, 240, 480, 2)
        self.layer3 = block_group(ShuffleUnit, 4, 480, 960, 2)
        self.linear = nn.Linear(960, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.linear(pool(self.layer3(self.layer2(self.layer1(out)))))


class SplitUnit(nn.Module):
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
        return _shuffle(torch.cat([kept, out], dim=1), 2)


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
        return _shuffle(torch.cat([left, right], dim=1), 2)


class CifarShuffleV2(nn.Module):
    """ShuffleNetV2 (Ma et al. 2018) at size 1: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    The stem is a 1×1 convolution without pooling.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    def __init__(self, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, SHUFFLE_STEM, 1)
        self.bn1 = nn.BatchNorm2d(SHUFFLE_STEM)
        self.layer1 = self._stage(4, SHUFFLE_STEM, 116)
        self.layer2 = self._stage(8, 116, 232)
        self.layer3 = self._stage(4, 232, 464)
        self.conv2 = conv(464, SHUFFLE_LAST, 1)
        self.bn2 = nn.BatchNorm2d(SHUFFLE_LAST)
        self.linear = nn.Linear(SHUFFLE_LAST, num_classes)

    @staticmethod
    def _stage(units: int, in_planes: int, planes: int) -> nn.Sequential:
        return nn.Sequential(DownUnit(in_planes, planes), *(SplitUnit(planes) for _ in range(units - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(pool(F.relu(self.bn2(self.conv2(out)), inplace=True)))


register(__name__, MobileNetV1, {"mobilenetv1": {}})  # 4.2 M parameters, 3.2 M of them before the last layer
register(__name__, CifarMobileNetV2, {"cifar_mobilenetv2": {}})  # 0.70 M
register(__name__, CifarShuffleV1, {"cifar_shufflev1": {}})  # 0.86 M
register(__name__, CifarShuffleV2, {"cifar_shufflev2": {}})  # 1.3 M
register(__name__, WideMobileNetV2, {"cifar_mobilenetv2_wide": {}})  # 2.3 M
