"""Networks that timm has in another form: those of RobustBench, whose keys are those of its files, and one of USB.

ConvStem networks (Singh et al. 2023), XCiT for 32×32 images (Debenedetti et al. 2022), Swin with Microsoft's keys, the
sparse ConvNeXt-L (Amini et al. 2024), and an ensemble (Chen et al. 2020, Adversarial Robustness: From Self-Supervised
Pre-Training to Fine-Tuning).
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dkl.models.networks.cifar_resnet import FourGroupResNet
from dkl.models.parts import MeanSparse, conv, register


class ConvStem(nn.Module):
    """3×3 convolutions from width to width, each with its stride, a LayerNorm over channels and GELU.

    With ``out``, a 1×1 convolution to that width follows.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], out: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride, padding=1), LayerNorm2d(width, eps=1e-6), nn.GELU()]
        if out is not None:
            layers.append(nn.Conv2d(widths[-1], out, 1))
        self.stem = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x)


def convstem_convnext(base: str, widths: Sequence[int], in_chans: int = 3, **kwargs: Any) -> nn.Module:
    """timm's ConvNeXt ``base`` with a ``ConvStem`` of ``widths``, which quarters the sides."""
    model = timm.create_model(base, in_chans=in_chans, **kwargs)
    model.stem = ConvStem((in_chans, *widths), (2, 2, 1)[: len(widths)])
    return model


def convstem_vit(base: str, in_chans: int = 3, **kwargs: Any) -> nn.Module:
    """timm's vision transformer ``base``, whose patches are embedded by a ``ConvStem``."""
    model = timm.create_model(base, in_chans=in_chans, **kwargs)
    model.patch_embed.proj = ConvStem((in_chans, 48, 96, 192, 384), (2, 2, 2, 2), model.embed_dim)
    return model


def xcit_cifar(base: str, **kwargs: Any) -> nn.Module:
    """timm's XCiT ``base`` for 32×32 images: the first two convolutions of its patch embedding have stride 1."""
    model = timm.create_model(base, **{"depth": 12, **kwargs})
    for place in (0, 2):
        model.patch_embed.proj[place][0].stride = (1, 1)
    return model


def _swin_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Microsoft's keys to timm's, which count a downsampling to the stage after it."""
    if "head.fc.weight" in state:
        return dict(state)
    kept = {key: value for key, value in state.items() if not key.endswith(("relative_position_index", "attn_mask"))}
    renamed = {
        re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", key): value
        for key, value in kept.items()
    }
    return {re.sub(r"^head\.", "head.fc.", key): value for key, value in renamed.items()}


def microsoft_swin(base: str, norm_eps: float = 1e-5, **kwargs: Any) -> nn.Module:
    """timm's Swin ``base``, which loads Microsoft's checkpoints as well as timm's."""
    model = timm.create_model(base, norm_layer=partial(nn.LayerNorm, eps=norm_eps), **kwargs)
    model.official_names = _swin_names
    return model


def sparse_convnext(base: str, **kwargs: Any) -> nn.Module:
    """timm's ConvNeXt ``base`` with ``MeanSparse`` before each GELU and after each block's branch."""
    model = timm.create_model(base, **kwargs)
    sparse = partial(MeanSparse, unused=("momentum", "epsilon"))
    for block in (block for stage in model.stages for block in stage.blocks):
        hidden, width = block.mlp.fc1.out_features, block.mlp.fc2.out_features
        block.mlp.act = nn.Sequential(sparse(hidden, dim=-1), block.mlp.act)
        block.drop_path = nn.Sequential(block.drop_path, sparse(width))
    return model


class PreActBottleneck(nn.Module):
    """BN-ReLU-conv three times, with a shortcut from the first activation if the shape changes."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        middle = planes // 4
        self.bn0, self.conv1 = nn.BatchNorm2d(in_planes), conv(in_planes, middle, 1)
        self.bn1, self.conv2 = nn.BatchNorm2d(middle), conv(middle, middle, 3, stride)
        self.bn2, self.conv3 = nn.BatchNorm2d(middle), conv(middle, planes, 1)
        self.shortcut = None
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(conv(in_planes, planes, 1, stride), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        activation = F.relu(self.bn0(x))
        out = F.relu(self.bn1(self.conv1(activation)))
        out = self.conv3(F.relu(self.bn2(self.conv2(out))))
        return out + (x if self.shortcut is None else self.shortcut(activation))


class ResNetEnsemble(nn.Module):
    """The mean probabilities of ``members`` ResNet-50 for 32×32 images, which RobustBench attacks as logits."""

    def __init__(
        self,
        members: int = 3,
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        build = partial(FourGroupResNet, PreActBottleneck, blocks, widths, num_classes, in_chans)
        self.models = nn.ModuleList(build() for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([model(x).softmax(1) for model in self.models]).mean(0)


register(
    __name__,
    convstem_convnext,
    {
        "convstem_convnext_tiny": {"base": "convnext_tiny", "widths": (48, 96)},
        "convstem_convnext_small": {"base": "convnext_small", "widths": (48, 96)},
        "convstem_convnext_base": {"base": "convnext_base", "widths": (64, 96, 128)},
        "convstem_convnext_large": {"base": "convnext_large", "widths": (96, 144, 192)},
    },
)
register(
    __name__,
    convstem_vit,
    {
        "convstem_vit_small": {"base": "deit_small_patch16_224"},
        "convstem_vit_base": {"base": "vit_base_patch16_224"},
    },
)
register(
    __name__,
    xcit_cifar,
    {
        "xcit_small_12_p4_32": {"base": "xcit_small_12_p16_224"},
        "xcit_medium_12_p4_32": {"base": "xcit_medium_24_p16_224"},
        "xcit_large_12_p4_32": {"base": "xcit_large_24_p16_224"},
    },
)
register(
    __name__,
    microsoft_swin,
    {
        "microsoft_swin_base": {"base": "swin_base_patch4_window7_224"},
        "microsoft_swin_large": {"base": "swin_large_patch4_window7_224"},
    },
)
register(__name__, sparse_convnext, {"sparse_convnext_large": {"base": "convnext_large"}})
register(__name__, ResNetEnsemble, {"cifar_resnet50_ensemble": {}})

register(
    __name__,
    VisionTransformer,
    {
        # USB's for 32×32 images (Wang et al. 2022): 256 patches and a class token. Keys are timm's, as in its file.
        "vit_small_patch2_32": {
            "img_size": 32,
            "patch_size": 2,
            "embed_dim": 384,
            "depth": 12,
            "num_heads": 6,
            "drop_path_rate": 0.2,
            "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        }
    },
)
