"""The wide residual networks of distillation on CIFAR-100: ``WideResNet`` at the depths and widths of the tables.

RepDistiller and mdistiller use the same parameter names. Their forward pass also returns features before activation,
for which it applies three BatchNorms a second time. In training, the running statistics of these (the first of groups
2 and 3, and the last) are therefore updated twice per step there; here they are updated once.
"""

from typing import Any

from timm.models import register_model

from dkl.models.robust.wide_resnet import WideResNet
from dkl.models.timm_entry import build


@register_model
def cifar_wrn_16_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-1: 0.18 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=16, widen_factor=1)


@register_model
def cifar_wrn_16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2, the same network as ``wrn16_2``: 0.69 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=16, widen_factor=2)


@register_model
def cifar_wrn_40_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-1: 0.56 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=40, widen_factor=1)


@register_model
def cifar_wrn_40_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-2: 2.2 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=40, widen_factor=2)
