"""``timm:NAME``: any network that timm knows, this project's included; without a file, with its published weights."""

from typing import Any

import timm

from dkl.errors import UserError
from dkl.models.create import check_name
from dkl.models.sources.source import Images, Request, Source

CREATE = "dkl.models.create_model"


def resolve(name: str, request: Request) -> Source:
    """Return timm's network ``name``. Without a file its published weights are used, and their normalization.

    Raises UserError if there is no such network, or if no weights are published for it or for these classes.
    """
    check_name(name)
    model: dict[str, Any] = {"_target_": CREATE, "name": name, "num_classes": request.num_classes}
    model |= {"in_chans": request.shape[0], **request.normalization, **request.arguments}
    if request.checkpoint is not None:
        return Source(model=model, weights=request.checkpoint)
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise UserError(f"timm publishes no weights for model=timm:{name}: add checkpoint=FILE")
    if known.num_classes != request.num_classes:
        raise UserError(
            f"timm's weights of {name} have {known.num_classes} classes, the data {request.num_classes}: choose other "
            "data, or add checkpoint=FILE"
        )
    model = {"mean": list(known.mean), "std": list(known.std)} | model | {"pretrained": True}
    return Source(model=model, weights=None, label=name)


def images(name: str) -> Images | None:
    """Return the images that timm's published weights of ``name`` are for; None if there are none."""
    known = timm.models.get_pretrained_cfg(name)
    return Images("", known.num_classes, known.input_size) if known is not None and known.has_weights else None
