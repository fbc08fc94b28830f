"""Plain convolutional networks, without shortcuts: VGG with BatchNorm for 32×32 images, and a small one for tests.

VGG (Simonyan & Zisserman 2015) has one linear layer and three max-poolings here; the depth counts the original's weight
layers, of which three are linear. Parameter names are those of the RepDistiller and mdistiller checkpoints
(``block0.0.weight`` …). These codes pool a fourth time, after ``block3``, if images are 64 pixels high; this network
does not.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dkl.models.parts import initialize_convolutions, initialize_head, pool, register

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


class SmallCNN(nn.Module):
    """Three 3×3 convolutions, no BatchNorm: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

    def __init__(self, width: int = 16, num_classes: int = 10, in_chans: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(2 * width * 16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


register(
    __name__,
    CifarVGG,
    {
        "cifar_vgg8": {"convolutions": (1, 1, 1, 1, 1)},  # 3.9 M parameters
        "cifar_vgg11": {"convolutions": (1, 1, 2, 2, 2)},  # 9.2 M
        "cifar_vgg13": {"convolutions": (2, 2, 2, 2, 2)},  # 9.4 M
        "cifar_vgg16": {"convolutions": (2, 2, 3, 3, 3)},  # 14.7 M
        "cifar_vgg19": {"convolutions": (2, 2, 4, 4, 4)},  # 20.0 M
    },
)
register(__name__, SmallCNN, {"small_cnn": {}})  # 19 thousand parameters on 8×8 digits
