"""A small convolutional network without BatchNorm, for 8×8 digits and for tests."""

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from dkl.models.timm_entry import build


class SmallCNN(nn.Module):
    """Three 3×3 convolutions and a linear layer: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``."""

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


@register_model
def small_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCNN:
    """Three convolutions, 19 thousand parameters on 8×8 digits."""
    return build(SmallCNN, pretrained, kwargs)
