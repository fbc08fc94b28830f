"""MobileNetV2 (Sandler et al. 2018) at half the width for 32×32 images, a student of distillation.

The activation is ReLU, not ReLU6, and widths are not rounded to multiples of 8. The second group (24 channels at full
width) keeps the image size, which the paper halves: 32 pixels become 2. Parameter names are those of the RepDistiller
and mdistiller checkpoints (``blocks.1.0.conv.3.weight`` …).
"""

from functools import partial
from typing import Any, ClassVar

from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, conv_bn_relu, initialize_convolutions, initialize_head, pool
from dkl.models.timm_entry import build

STEM, LAST = 32, 1280
GROUPS = (  # expansion, width, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise convolution, linear 1×1 projection; the input is added if the shape stays."""

    def __init__(self, in_planes: int, planes: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_planes * expansion
        self.residual = stride == 1 and in_planes == planes
        self.conv = nn.Sequential(
            *conv_bn_relu(in_planes, middle, 1),
            *conv_bn_relu(middle, middle, 3, stride, groups=middle),
            conv(middle, planes, 1),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class CifarMobileNetV2(nn.Module):
    """All published widths except the last times ``width``: ``logits[B, num_classes]`` of ``[B, in_chans, H, W]``."""

    feature_stages: ClassVar[tuple[str, ...]] = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")

    def __init__(self, width: float = 0.5, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        planes = int(STEM * width)
        self.conv1 = nn.Sequential(*conv_bn_relu(in_chans, planes, 3, 2))
        self.blocks = nn.Sequential()
        for expansion, published, blocks, stride in GROUPS:
            before, planes = planes, int(published * width)
            self.blocks.append(
                block_group(partial(InvertedResidual, expansion=expansion), blocks, before, planes, stride)
            )
        self.conv2 = nn.Sequential(*conv_bn_relu(planes, LAST, 1))
        head = nn.Linear(LAST, num_classes)
        self.classifier = nn.Sequential(head)
        initialize_convolutions(self)
        initialize_head(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(pool(self.conv2(self.blocks(self.conv1(x)))))


@register_model
def cifar_mobilenetv2(pretrained: bool = False, **kwargs: Any) -> CifarMobileNetV2:
    """MobileNetV2 at half the width for 32×32 images: 0.70 M parameters."""
    return build(CifarMobileNetV2, pretrained, kwargs)
