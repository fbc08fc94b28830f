"""Networks that give logits for every pixel: PSPNets on timm's encoders, and those of segmentation-models-pytorch."""

from dkl.models.segmentation.pspnet import PSPNet
from dkl.models.segmentation.smp import build_smp, is_smp

__all__ = ["PSPNet", "build_smp", "is_smp"]
