"""Networks of segmentation-models-pytorch by name: ``smp_<architecture>_<encoder>``, such as ``smp_fpn_resnet18``."""

import textwrap
from typing import Any

from torch import nn

from dkl.errors import UserError, first_line, needs_extra

PREFIX = "smp_"


def is_smp(name: str) -> bool:
    """Whether ``name`` names a network of segmentation-models-pytorch."""
    return name.startswith(PREFIX)


def build_smp(name: str, num_classes: int, in_chans: int, **kwargs: Any) -> nn.Module:
    """Build the network ``name`` with freshly initialized weights, unless ``kwargs`` have ``encoder_weights``.

    Raises UserError if there is no such architecture or encoder, and NotInstalledError without the library.
    """
    with needs_extra("segmentation"):
        import segmentation_models_pytorch as smp
    architecture, _, encoder = name.removeprefix(PREFIX).partition("_")
    if not encoder:
        raise UserError(f"{name} names no encoder: write {PREFIX}<architecture>_<encoder>, such as smp_fpn_resnet18")
    settings = {"encoder_weights": None} | kwargs
    try:
        return smp.create_model(
            architecture, encoder_name=encoder, in_channels=in_chans, classes=num_classes, **settings
        )
    except (KeyError, TypeError, ValueError) as error:
        # A KeyError prints its message in quotes. The library lists hundreds of encoders.
        reason = textwrap.shorten(first_line(error).strip("'\""), 200, placeholder=" …")
        raise UserError(f"there is no network {name}: {reason}; such as smp_fpn_resnet18") from None
