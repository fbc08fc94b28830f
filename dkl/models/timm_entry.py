"""What this project's timm entry points share: they drop timm's own arguments and offer no pretrained weights."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from dkl.errors import UserError

Model = TypeVar("Model", bound=nn.Module)

TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # arguments that timm adds by itself


def build(model: Callable[..., Model], pretrained: bool, kwargs: dict[str, Any], **defaults: Any) -> Model:
    """Return ``model(**defaults, **kwargs)``; ``kwargs`` take precedence. Raises UserError if ``pretrained``."""
    if pretrained:
        raise UserError("this model has no published weights: load a file with dkl.models.load_checkpoint instead")
    return model(**{**defaults, **{key: value for key, value in kwargs.items() if key not in TIMM_ONLY}})
