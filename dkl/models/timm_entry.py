"""Shared by this project's timm entry points: they drop timm's own arguments and publish no weights.

``timm.create_model("local-dir:FOLDER", pretrained=True)`` and ``hf-hub:USER/MODEL`` load what ``dkl export`` wrote.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import timm
from torch import nn

from dkl.errors import UserError

Model = TypeVar("Model", bound=nn.Module)

TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_model_args")
"""Arguments that timm adds by itself."""

DEFAULTS = {"num_classes": 10, "in_chans": 3}
"""The default input of a network; ``in_chans`` of some is 1."""


def build(model: Callable[..., Model], pretrained: bool, kwargs: dict[str, Any], **defaults: Any) -> Model:
    """Return ``model(**defaults, **kwargs)``; ``kwargs`` take precedence. If ``pretrained``, load the weights that
    timm found in a folder or on a hub. Raises UserError if timm found none.
    """
    source = kwargs.get("pretrained_cfg")
    if pretrained and not isinstance(source, dict) and not hasattr(source, "to_dict"):
        raise UserError("this model has no published weights: load a file with dkl.models.load_checkpoint instead")
    own = {key: value for key, value in kwargs.items() if key not in TIMM_ONLY}
    network = model(**{**defaults, **own})
    if pretrained:
        config = source if isinstance(source, dict) else source.to_dict()  # type: ignore[union-attr]  # checked above
        sizes = {key: own.get(key, default) for key, default in DEFAULTS.items()}
        # The classifier's place is not declared: the weights must have these classes.
        timm.models.load_pretrained(network, config, cache_dir=kwargs.get("cache_dir"), **sizes)
    return network
