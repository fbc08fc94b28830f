"""Pieces that several convolutional networks share, so that each of their files shows only its own structure."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def conv(in_planes: int, out_planes: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose padding keeps the size at stride 1, for odd ``kernel``."""
    return nn.Conv2d(in_planes, out_planes, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def conv_bn_relu(
    in_planes: int, out_planes: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """A convolution without bias, its BatchNorm and ReLU, to be put into one flat ``nn.Sequential``."""
    return conv(in_planes, out_planes, kernel, stride, groups), nn.BatchNorm2d(out_planes), nn.ReLU(inplace=True)


def projection(in_planes: int, out_planes: int, stride: int) -> nn.Sequential:
    """The shortcut of a post-activation block: 1×1 convolution and BatchNorm where shape changes, else the identity."""
    if stride == 1 and in_planes == out_planes:
        return nn.Sequential()
    return nn.Sequential(conv(in_planes, out_planes, 1, stride), nn.BatchNorm2d(out_planes))


def group(
    block: Callable[[int, int, int], nn.Module], blocks: int, in_planes: int, out_planes: int, stride: int
) -> nn.Sequential:
    """``blocks`` of ``block(in_planes, out_planes, stride)``, the first one with the group's stride."""
    rest = (block(out_planes, out_planes, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(in_planes, out_planes, stride), *rest)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups: of 0 1 2 | 3 4 5 it makes 0 3 1 4 2 5."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def pool(x: Tensor) -> Tensor:
    """The mean of each channel of ``x[B, C, H, W]``: ``[B, C]``."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def initialise_convolutions(network: nn.Module) -> None:
    """Weights from N(0, 2 / (kernel area · output channels)), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_head(head: nn.Linear) -> None:
    """Weights from N(0, 0.01²), biases 0."""
    nn.init.normal_(head.weight, 0, 0.01)
    nn.init.zeros_(head.bias)
