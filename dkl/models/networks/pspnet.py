"""PSPNet (Zhao et al. 2017) with the layers and the dilations of semseg and APD, on timm's ResNets.

    stem 64-64-128, layer1 to layer4 at stride 8   →  pyramid pooling (1, 2, 3, 6)  →  3×3 conv, BN, ReLU, dropout
    →  1×1 classifier  →  bilinear to the size of the image; in training also an auxiliary head on layer3

timm's blocks have the names of the official ones, so APD's files load by name. semseg keeps the 3×3 convolution in its
classifier (``cls.0``, ``cls.1``, ``cls.4``); ``official_names`` renames those.
"""

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from dkl.models.parts import register, with_prefixes

BINS = (1, 2, 3, 6)
OFFICIAL_NAMES = {"cls.0.": "ppm.merge.0.", "cls.1.": "ppm.merge.1.", "cls.4.": "cls.0."}
"""The beginnings of keys of semseg, and those of APD, which are ours."""


def resize(maps: Tensor, size: torch.Size) -> Tensor:
    """``maps[B, C, H, W]`` at another size, bilinear with aligned corners, as in semseg."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def _convolved(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
    ]


class PyramidPooling(nn.Module):
    """Means over grids of 1, 2, 3 and 6 cells beside the map itself, merged to ``outputs`` channels."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        reduced = inputs // len(BINS)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(inputs, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
            )
            for bins in BINS
        )
        self.merge = nn.Sequential(*_convolved(inputs + len(BINS) * reduced, outputs, dropout))

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, outputs, H, W]``."""
        return self.merge(torch.cat([maps, *(resize(part(maps), maps.shape[-2:]) for part in self.features)], 1))


def _dilate(layer: nn.Module, dilation: int, name: str) -> None:
    """Trade the stride of ``layer`` for the ``dilation`` of its convolutions called ``name``, as in semseg."""
    for key, module in layer.named_modules():
        if isinstance(module, nn.Conv2d) and key.endswith(name):
            module.dilation, module.padding, module.stride = (dilation,) * 2, (dilation,) * 2, (1, 1)
        elif isinstance(module, nn.Conv2d) and key.endswith("downsample.0"):
            module.stride = (1, 1)


class PSPNet(nn.Module):
    """PSPNet around ``encoder``, a ResNet with a deep stem.

    ``head`` and ``auxiliary`` are the widths of the two heads before their classifiers; ``dropout`` is the probability
    in both that a channel is set to zero.

    Logits ``[B, num_classes, H, W]`` have the images' size. ``feature_classifier`` and ``auxiliary_head`` name the
    submodules whose input are the features and whose output the auxiliary logits (see ``dkl.models.features``).
    """

    feature_classifier = "cls"
    auxiliary_head = "aux"

    def __init__(
        self, encoder: ResNet, num_classes: int, *, head: int = 512, auxiliary: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.layer0 = nn.Sequential(*encoder.conv1, encoder.bn1, encoder.act1, encoder.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(encoder, f"layer{i}") for i in (1, 2, 3, 4))
        name = "conv1" if isinstance(self.layer4[0], BasicBlock) else "conv2"
        _dilate(self.layer3, 2, name)
        _dilate(self.layer4, 4, name)
        deep = encoder.num_features
        self.ppm = PyramidPooling(deep, head, dropout)
        self.cls = nn.Sequential(nn.Conv2d(head, num_classes, 1))
        self.aux = nn.Sequential(*_convolved(deep // 2, auxiliary, dropout), nn.Conv2d(auxiliary, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """``images[B, 3, H, W]`` to logits ``[B, num_classes, H, W]``."""
        third = self.layer3(self.layer2(self.layer1(self.layer0(images))))
        if self.training:
            self.aux(third)  # whoever wants these logits hooks this module
        return resize(self.cls(self.ppm(self.layer4(third))), images.shape[-2:])

    @staticmethod
    def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """``state`` with semseg's keys renamed; APD's are ours."""
        return with_prefixes(state, OFFICIAL_NAMES) if "cls.4.weight" in state else state


def _pspnet(
    block: type[nn.Module],
    layers: tuple[int, int, int, int],
    num_classes: int = 1000,
    in_chans: int = 3,
    width: int = 64,
) -> PSPNet:
    """A PSPNet whose widths are ``width`` / 64 of the official ones."""
    channels = tuple(width * factor for factor in (1, 2, 4, 8))
    encoder = ResNet(
        block, layers, num_classes=0, in_chans=in_chans, stem_type="deep", stem_width=width, channels=channels
    )
    return PSPNet(encoder, num_classes, head=8 * width, auxiliary=4 * width)


register(
    __name__,
    _pspnet,
    {
        "pspnet_resnet18": {"block": BasicBlock, "layers": (2, 2, 2, 2)},  # the student of Table 17
        "pspnet_resnet50": {"block": Bottleneck, "layers": (3, 4, 6, 3)},
        "pspnet_resnet101": {"block": Bottleneck, "layers": (3, 4, 23, 3)},  # the teacher of Table 17
        # of small tables: the teacher at half the width; the student, one block per layer at a quarter of the width
        "pspnet_resnet18_w32": {"block": BasicBlock, "layers": (2, 2, 2, 2), "width": 32},
        "pspnet_resnet10_w16": {"block": BasicBlock, "layers": (1, 1, 1, 1), "width": 16},
    },
)
