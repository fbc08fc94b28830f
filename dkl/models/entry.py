"""What this project's timm entry points share: timm's own arguments dropped, no weights promised that do not exist."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from dkl.errors import UserError

Model = TypeVar("Model", bound=nn.Module)

TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def build(model: Callable[..., Model], pretrained: bool, kwargs: dict[str, Any], **defaults: Any) -> Model:
    """``model(**defaults, **kwargs)`` where ``kwargs`` win. Raises UserError where pretrained weights are asked for."""
    if pretrained:
        raise UserError("this model has no published weights to fetch; load a file with dkl.models.load_checkpoint")
    return model(**{**defaults, **{key: value for key, value in kwargs.items() if key not in TIMM_ONLY}})
