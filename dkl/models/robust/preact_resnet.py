"""Pre-activation ResNet-18 for 32×32 images (He et al. 2016b), with the parameter names of its usual checkpoints."""

from typing import Any

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, pool
from dkl.models.timm_entry import build


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, with a 1×1 shortcut from the first activation if the shape changes."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.shortcut = None
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(conv(in_planes, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        activation = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activation)
        out = self.conv1(activation)
        return shortcut + self.conv2(F.relu(self.bn2(out)))


class PreActResNet(nn.Module):
    """Two pre-activation blocks in each of four groups: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    ``width`` is the width of the first group, 64 in the published network.
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, width, 3)
        self.layer1 = block_group(PreActBlock, 2, width, width, 1)
        self.layer2 = block_group(PreActBlock, 2, width, 2 * width, 2)
        self.layer3 = block_group(PreActBlock, 2, 2 * width, 4 * width, 2)
        self.layer4 = block_group(PreActBlock, 2, 4 * width, 8 * width, 2)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        out = F.relu(self.bn(out))
        return self.linear(pool(out))


@register_model
def preact_resnet18(pretrained: bool = False, **kwargs: Any) -> PreActResNet:
    """PreAct ResNet-18: 11.2 M parameters."""
    return build(PreActResNet, pretrained, kwargs, width=64)


@register_model
def preact_resnet18_w16(pretrained: bool = False, **kwargs: Any) -> PreActResNet:
    """PreAct ResNet-18 at a quarter of the width: 0.70 M parameters, for CPU."""
    return build(PreActResNet, pretrained, kwargs, width=16)
