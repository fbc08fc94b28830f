"""``timm:NAME``: any network that timm knows, this project's included; without a file, with its published weights."""

import re
from collections.abc import Mapping
from typing import Any

import timm

from dkl.errors import UserError, shortened
from dkl.models.create import check_name
from dkl.models.sources.source import Images, Request, Source

CREATE = "dkl.models.create_model"

LOADING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "encoder_weights", "cache_dir"}
"""Arguments of timm that load weights, which a foreign configuration cannot set: the user chooses them."""


def foreign_network(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the configuration of the network that ``values`` describe, which somebody else wrote into ``place``.

    Its ``name`` is looked up in timm's table, and nothing is imported. Raises UserError if there is no such network, or
    if ``values`` hold more than plain values.
    """
    if (found := _instruction(values)) is not None:
        raise UserError(
            f"{place} names no network that can be built safely: it has {shortened(found)!r}, but may hold only plain "
            "values, without ${…} or keys that begin with _; add model=package.module:function"
        )
    if not re.fullmatch(r"[\w.-]+", name := str(values.get("name"))):
        raise UserError(f"{place} names {name!r}, which is no network of timm: add model=package.module:function")
    check_name(name)
    return {"_target_": CREATE, **{key: value for key, value in values.items() if not (key in LOADING and value)}}


def _instruction(values: Mapping[str, Any]) -> str | None:
    """Return a text in ``values``, at any depth, that Hydra would follow: a key such as ``_target_``, or ``${…}``."""
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if special := next((key for key in value if str(key).startswith("_")), None):
                return str(special)
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and "${" in value:
            return value
    return None


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
