"""Pre-activation ResNet-18 with SiLU (Gowal et al. 2020, Rebuffi et al. 2021, Rade and Moosavi-Dezfooli 2021).

It differs from ``PreActResNet`` in the activation, in the padding of convolutions at stride 2, which is that of
``SwishWideResNet``, and in its shortcuts: 3×3 convolutions of the block's input. Parameter names are those of
RobustBench's checkpoints (``layer_0.0.conv_2d_1.weight`` …). Those networks normalize their input; here
``create_model(mean=…, std=…)`` does.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import create_conv2d
from timm.models import register_model
from torch import Tensor, nn

from dkl.models.layers import block_group, conv, pool
from dkl.models.timm_entry import build


class SwishPreActBlock(nn.Module):
    """BN-SiLU-conv twice, with a 3×3 shortcut from the block's input if the shape changes."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(in_planes)
        self.conv_2d_1 = create_conv2d(in_planes, planes, 3, stride=stride, padding="same", bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(planes)
        self.conv_2d_2 = conv(planes, planes, 3)
        self.shortcut = None
        if stride != 1 or in_planes != planes:
            self.shortcut = create_conv2d(in_planes, planes, 3, stride=stride, padding="same", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_2d_1(F.silu(self.batchnorm_0(x)))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return shortcut + self.conv_2d_2(F.silu(self.batchnorm_1(out)))


class SwishPreActResNet(nn.Module):
    """Two blocks in each of four groups: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    ``width`` is the width of the first group, 64 in the published network.
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv_2d = conv(in_chans, width, 3)
        self.layer_0 = block_group(SwishPreActBlock, 2, width, width, 1)
        self.layer_1 = block_group(SwishPreActBlock, 2, width, 2 * width, 2)
        self.layer_2 = block_group(SwishPreActBlock, 2, 2 * width, 4 * width, 2)
        self.layer_3 = block_group(SwishPreActBlock, 2, 4 * width, 8 * width, 2)
        self.batchnorm = nn.BatchNorm2d(8 * width)
        self.logits = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(x)))))
        return self.logits(pool(F.silu(self.batchnorm(out))))


@register_model
def preact_resnet18_swish(pretrained: bool = False, **kwargs: Any) -> SwishPreActResNet:
    """PreAct ResNet-18 with SiLU: 12.6 M parameters."""
    return build(SwishPreActResNet, pretrained, kwargs, width=64)
