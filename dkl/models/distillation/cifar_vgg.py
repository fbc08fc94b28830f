"""VGG (Simonyan & Zisserman 2015) with BatchNorm for 32×32 images: one linear layer, three max-poolings.

The depth counts the weight layers of the original, of which three are linear; here only one of these is left.
Parameter names are those of the RepDistiller and mdistiller checkpoints (``block0.0.weight`` …). These codes pool a
fourth time, after ``block3``, if images are 64 pixels high; this network does not.
"""

from typing import Any, ClassVar

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import initialize_convolutions, initialize_head, pool
from dkl.models.timm_entry import build

WIDTHS = (64, 128, 256, 512, 512)


def _block(convolutions: int, in_planes: int, planes: int) -> nn.Sequential:
    """3×3 convolutions with bias, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        before = planes if index else in_planes
        layers += [nn.Conv2d(before, planes, 3, padding=1), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class CifarVGG(nn.Module):
    """Five blocks of ``convolutions``: ``logits[B, num_classes]`` of ``[B, in_chans, H, W]``, H and W at least 8."""

    feature_stages: ClassVar[tuple[str, ...]] = ("block1", "block2", "block3", "block4")

    def __init__(self, convolutions: tuple[int, int, int, int, int], num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.block0 = _block(convolutions[0], in_chans, WIDTHS[0])
        self.block1 = _block(convolutions[1], WIDTHS[0], WIDTHS[1])
        self.block2 = _block(convolutions[2], WIDTHS[1], WIDTHS[2])
        self.block3 = _block(convolutions[3], WIDTHS[2], WIDTHS[3])
        self.block4 = _block(convolutions[4], WIDTHS[3], WIDTHS[4])
        self.classifier = nn.Linear(WIDTHS[4], num_classes)
        initialize_convolutions(self)
        initialize_head(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.block0, self.block1, self.block2):
            x = F.max_pool2d(block(x), 2)
        return self.classifier(pool(self.block4(self.block3(x))))


@register_model
def cifar_vgg8(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """VGG-8: 3.9 M parameters."""
    return build(CifarVGG, pretrained, kwargs, convolutions=(1, 1, 1, 1, 1))


@register_model
def cifar_vgg11(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """VGG-11: 9.2 M parameters."""
    return build(CifarVGG, pretrained, kwargs, convolutions=(1, 1, 2, 2, 2))


@register_model
def cifar_vgg13(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """VGG-13: 9.4 M parameters."""
    return build(CifarVGG, pretrained, kwargs, convolutions=(2, 2, 2, 2, 2))


@register_model
def cifar_vgg16(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """VGG-16: 14.7 M parameters."""
    return build(CifarVGG, pretrained, kwargs, convolutions=(2, 2, 3, 3, 3))


@register_model
def cifar_vgg19(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """VGG-19: 20.0 M parameters."""
    return build(CifarVGG, pretrained, kwargs, convolutions=(2, 2, 4, 4, 4))
