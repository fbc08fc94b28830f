"""The wide residual networks of distillation on CIFAR-100: ``wide_resnet`` at the depths and widths of its tables.

RepDistiller and mdistiller name the parameters alike. Their forward pass also returns features before activation, for
which it applies three BatchNorms a second time: in training the running statistics of these (the first of groups 2 and
3, and the last) move twice a step. Here they move once.
"""

from typing import Any

from timm.models import register_model

from dkl.models.entry import build
from dkl.models.robust.wide_resnet import WideResNet


@register_model
def cifar_wrn_16_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-1: 0.18 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=16, widen_factor=1)


@register_model
def cifar_wrn_16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2, the network that is also ``wrn16_2``: 0.69 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=16, widen_factor=2)


@register_model
def cifar_wrn_40_1(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-1: 0.56 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=40, widen_factor=1)


@register_model
def cifar_wrn_40_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-40-2: 2.2 M parameters."""
    return build(WideResNet, pretrained, kwargs, depth=40, widen_factor=2)
