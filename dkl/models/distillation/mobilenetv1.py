"""MobileNet (Howard et al. 2017) for 224×224 images, the student of distillation on ImageNet.

Unlike timm's ``mobilenetv1_100`` it uses plain ReLU, and the parameter names of mdistiller's checkpoints
(``model.1.3.weight`` …).
"""

from typing import Any, ClassVar

from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import conv_bn_relu, pool
from dkl.models.timm_entry import build

STEM = 32
# width and stride of each block
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """A stem and 13 depthwise separable blocks: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    # the last block of each image size
    feature_stages: ClassVar[tuple[str, ...]] = ("model.3", "model.5", "model.11", "model.13")

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.model = nn.Sequential(nn.Sequential(*conv_bn_relu(in_chans, STEM, 3, 2)))
        planes = STEM
        for width, stride in BLOCKS:
            depthwise = conv_bn_relu(planes, planes, 3, stride, groups=planes)
            self.model.append(nn.Sequential(*depthwise, *conv_bn_relu(planes, width, 1)))
            planes = width
        self.fc = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pool(self.model(x)))


@register_model
def mobilenetv1(pretrained: bool = False, **kwargs: Any) -> MobileNetV1:
    """MobileNet for ImageNet: 4.2 M parameters, 3.2 M of them before the last layer."""
    return build(MobileNetV1, pretrained, kwargs)
