"""Pre-activation ResNet-18 for 32×32 images (He et al. 2016b), with ReLU or SiLU.

``PreActResNet`` has the parameter names of the network's usual checkpoints. ``SwishPreActResNet`` (Gowal et al. 2020,
Rebuffi et al. 2021, Rade and Moosavi-Dezfooli 2021) has those of RobustBench's (``layer_0.0.conv_2d_1.weight`` …).
"""

from functools import partial

import torch.nn.functional as F
from timm.layers import create_conv2d
from torch import Tensor, nn

from dkl.models.parts import block_group, conv, pool, register


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, with a 1×1 shortcut if the shape changes: from the first activation if it is ``activated``,
    else from the block's input.
    """

    def __init__(self, in_planes: int, planes: int, stride: int, *, activated: bool = True) -> None:
        super().__init__()
        self.activated = activated
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.shortcut = None
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(conv(in_planes, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        activation = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activation if self.activated else x)
        out = self.conv1(activation)
        return shortcut + self.conv2(F.relu(self.bn2(out)))


class PreActResNet(nn.Module):
    """Two pre-activation blocks in each of four groups: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    ``width`` is the width of the first group, 64 in the published network. ``activated`` is false in the networks of
    fast adversarial training (Wong et al. 2020): their shortcuts start before the first BatchNorm, and pooling follows
    the last sum.
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_chans: int = 3, *, activated: bool = True) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = conv(in_chans, width, 3)
        block = partial(PreActBlock, activated=activated)
        self.layer1 = block_group(block, 2, width, width, 1)
        self.layer2 = block_group(block, 2, width, 2 * width, 2)
        self.layer3 = block_group(block, 2, 2 * width, 4 * width, 2)
        self.layer4 = block_group(block, 2, 4 * width, 8 * width, 2)
        self.bn = nn.BatchNorm2d(8 * width) if activated else None
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(pool(out if self.bn is None else F.relu(self.bn(out))))


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
    """``PreActResNet`` with SiLU, another shortcut, and at stride 2 the padding of ``SwishWideResNet``.

    The published networks normalize their input; here ``create_model(mean=…, std=…)`` does.
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


register(
    __name__,
    PreActResNet,
    {
        "preact_resnet18": {"width": 64},  # 11.2 M parameters
        "preact_resnet18_w32": {"width": 32},  # 2.80 M, its teacher
        "preact_resnet18_fast": {"width": 64, "activated": False},  # of fast adversarial training
        "preact_resnet18_w16": {"width": 16},  # 0.70 M, for CPU
    },
)
register(__name__, SwishPreActResNet, {"preact_resnet18_swish": {"width": 64}})  # 12.6 M parameters
