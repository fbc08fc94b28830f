"""Wide residual networks for 32×32 images (Zagoruyko & Komodakis 2016), pre-activation, without dropout.

WRN-d-k has (d − 4)/6 blocks in each of its three groups and widths 16, 16k, 32k, 64k. There are two families, whose
parameter names are those of their checkpoints:

* ``WideResNet`` with ReLU, as in TRADES and DKL (``block1.layer.0.convShortcut.weight`` …);
* ``SwishWideResNet`` with SiLU (Gowal et al. 2020), used for adversarial training with synthetic data, as in
  DM-Improves-AT and RobustBench (``layer.0.block.0.batchnorm_0.weight`` …).

Both take widths of their own. RobustBench's variants of them are options: ``standardized`` (Ding et al. 2020), the
networks of Huang et al. 2021, whose keys ``official_names`` renames, ``squeeze`` (Peng et al. 2023) and ``sparse``
(Amini et al. 2024).

RepDistiller and mdistiller use the names of the first family. Their forward pass also returns features before
activation, for which it applies three BatchNorms a second time. In training, the running statistics of these (the first
of groups 2 and 3, and the last) are therefore updated twice per step there; here they are updated once.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from timm.layers import SqueezeExcite, create_conv2d
from torch import Tensor, nn

from dkl.models.parts import MeanSparse, block_group, conv, initialize_convolutions, pool, register, with_prefixes

MOMENTUM = 0.01
"""Momentum of BatchNorm in the family with SiLU."""


class BasicBlock(nn.Module):
    """BN-ReLU-conv twice, with a 1×1 shortcut from the first activation if the width changes."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, out_planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_planes)
        self.conv2 = conv(out_planes, out_planes, 3)
        self.convShortcut = None  # named as in the checkpoints
        if in_planes != out_planes:
            self.convShortcut = conv(in_planes, out_planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        # In place is safe: nothing else uses the output of a BatchNorm.
        activation = F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(activation)), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(activation)
        return shortcut + self.conv2(out)


class SwishBlock(nn.Module):
    """BN-SiLU-conv twice, with a 1×1 shortcut from the first activation if the width changes.

    ``squeeze``: channels are weighted by a squeeze-and-excitation after the second convolution. ``sparse``: each
    BatchNorm and the block's sum are followed by ``MeanSparse``.
    """

    def __init__(
        self, in_planes: int, out_planes: int, stride: int, *, squeeze: bool = False, sparse: bool = False
    ) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(in_planes, momentum=MOMENTUM)
        self.conv_0 = create_conv2d(in_planes, out_planes, 3, stride=stride, padding="same", bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(out_planes, momentum=MOMENTUM)
        self.conv_1 = conv(out_planes, out_planes, 3)
        self.shortcut = None
        if in_planes != out_planes:
            self.shortcut = conv(in_planes, out_planes, 1, stride)
        self.se = SqueezeExcite(out_planes, rd_channels=round(out_planes / 4)) if squeeze else nn.Identity()
        self.meansparse_0, self.meansparse_1, self.meansparse_2 = (
            MeanSparse(width) if sparse else nn.Identity() for width in (in_planes, out_planes, out_planes)
        )

    def forward(self, x: Tensor) -> Tensor:
        activation = F.silu(self.meansparse_0(self.batchnorm_0(x)))
        out = F.silu(self.meansparse_1(self.batchnorm_1(self.conv_0(activation))))
        shortcut = x if self.shortcut is None else self.shortcut(activation)
        return self.meansparse_2(shortcut + self.se(self.conv_1(out)))


def _groups(
    name: str, block: Callable[[int, int, int], nn.Module], blocks: Sequence[int], widths: Sequence[int]
) -> list[nn.Sequential]:
    """The three groups of ``blocks``; in the checkpoints' keys, the blocks of a group are under ``name``."""
    sizes = zip(blocks, widths[:-1], widths[1:], (1, 2, 2), strict=True)
    return [nn.Sequential(OrderedDict({name: block_group(block, *size)})) for size in sizes]


def _blocks(depth: int) -> tuple[int, int, int]:
    """The blocks of the three groups. Raises ValueError if (depth − 4) is not a multiple of 6."""
    if (depth - 4) % 6:
        raise ValueError(f"the depth of a wide residual network must be 6n + 4, not {depth}")
    return ((depth - 4) // 6,) * 3


def standardize(x: Tensor) -> Tensor:
    """``x[B, C, H, W]`` with mean 0 and deviation 1 per image, as TensorFlow's ``per_image_standardization``."""
    mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
    return (x - mean) / std.clamp(min=x[0].numel() ** -0.5)


class WideResNet(nn.Module):
    """WRN-``depth``-``widen_factor``: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]`` in [0, 1].

    ``widths`` replace those of the stem and the three groups. ``standardized``: each image is standardized first.

    Raises ValueError if (depth − 4) is not a multiple of 6.
    """

    feature_stages: ClassVar[tuple[str, ...]] = ("block1", "block2", "block3")
    # The sum at the end of a group is normalized and activated by the next group, or before pooling.
    stages_before_activation: ClassVar[tuple[str, ...]] = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        num_classes: int = 10,
        in_chans: int = 3,
        *,
        widths: Sequence[int] | None = None,
        standardized: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.standardized = num_classes, standardized
        widths = widths or (16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
        self.conv1 = conv(in_chans, widths[0], 3)
        self.block1, self.block2, self.block3 = _groups("layer", BasicBlock, _blocks(depth), widths)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)
        initialize_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    @staticmethod
    def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the stem and groups of Huang et al. 2021's checkpoints."""
        return with_prefixes(state, {"stem_conv.": "conv1."} | {f"blocks.{i}.": f"block{i + 1}." for i in range(3)})

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(standardize(x) if self.standardized else x)
        out = self.block3(self.block2(self.block1(out)))
        out = F.relu(self.bn1(out), inplace=True)
        return self.fc(pool(out))


class SwishWideResNet(nn.Module):
    """WRN-``depth``-``widen_factor`` with SiLU: ``logits[B, num_classes]`` of images ``[B, in_chans, H, W]``.

    It differs from ``WideResNet`` also in BatchNorm's momentum, and in the padding of 3×3 convolutions at stride 2,
    which is TensorFlow's "SAME": for even sizes, one row and column of zeros at the bottom and right. The published
    networks normalize their input; here ``create_model(mean=…, std=…)`` does. ``blocks`` and ``widths`` replace those
    of the three groups, and of the stem and the groups. ``squeeze`` and ``sparse`` are those of ``SwishBlock``; with
    the latter the last BatchNorm is followed by ``MeanSparse`` too.

    Raises ValueError if (depth − 4) is not a multiple of 6.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        num_classes: int = 10,
        in_chans: int = 3,
        *,
        blocks: Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
        squeeze: bool = False,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths = widths or (16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
        block = partial(SwishBlock, squeeze=squeeze, sparse=sparse)
        self.init_conv = conv(in_chans, widths[0], 3)
        self.layer = nn.Sequential(*_groups("block", block, blocks or _blocks(depth), widths))
        self.meansparse_end = MeanSparse(widths[-1]) if sparse else nn.Identity()
        self.batchnorm = nn.BatchNorm2d(widths[-1], momentum=MOMENTUM)
        self.logits = nn.Linear(widths[-1], num_classes)
        initialize_convolutions(self)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = F.silu(self.meansparse_end(self.batchnorm(self.layer(self.init_conv(x)))))
        return self.logits(pool(out))


register(
    __name__,
    WideResNet,
    {
        "wrn34_10": {"depth": 34, "widen_factor": 10},  # 46.2 M parameters: Tables 1-3 and 8-12, input not normalized
        "wrn34_20": {"depth": 34, "widen_factor": 20},  # 184.5 M
        "wrn28_10": {"depth": 28, "widen_factor": 10},  # 36.5 M
        "wrn28_2": {"depth": 28, "widen_factor": 2},  # 1.47 M: classic semi-supervised learning
        "wrn16_2": {"depth": 16, "widen_factor": 2},  # 0.69 M
        "wrn10_2": {"depth": 10, "widen_factor": 2},  # 0.30 M, for CPU
        "wrn10_1": {"depth": 10, "widen_factor": 1},  # 0.08 M, for CPU
        # of the distillation tables on CIFAR-100
        "cifar_wrn_16_1": {"depth": 16, "widen_factor": 1},  # 0.18 M
        "cifar_wrn_16_2": {"depth": 16, "widen_factor": 2},  # 0.69 M, the network of wrn16_2
        "cifar_wrn_40_1": {"depth": 40, "widen_factor": 1},  # 0.56 M
        "cifar_wrn_40_2": {"depth": 40, "widen_factor": 2},  # 2.2 M
    },
)
register(
    __name__,
    SwishWideResNet,
    {
        "wrn28_10_swish": {"depth": 28, "widen_factor": 10},  # 36.5 M: synthetic-data rows of Tables 2 and 3
        "wrn70_16_swish": {"depth": 70, "widen_factor": 16},  # 266.8 M
        "wrn34_10_swish": {"depth": 34, "widen_factor": 10},  # 46.2 M
        "wrn34_20_swish": {"depth": 34, "widen_factor": 20},  # 184.5 M
        "wrn106_16_swish": {"depth": 106, "widen_factor": 16},  # 415.5 M
        "ra_wrn70_16_swish": {  # 267.2 M: RobArch, its own blocks and widths
            "depth": 70,
            "widen_factor": 16,
            "blocks": (30, 31, 10),
            "widths": (96, 216, 432, 864),
            "squeeze": True,
        },
        "wrn10_2_swish": {"depth": 10, "widen_factor": 2},  # 0.30 M, for CPU
    },
)
