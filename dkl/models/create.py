"""Build any model by its timm name, with the input normalisation inside it."""

import difflib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dkl.errors import UserError


def _normalise(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    mean, std = module.get_buffer("input_mean"), module.get_buffer("input_std")
    return ((args[0] - mean) / std, *args[1:])


def normalise_input(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Make ``model`` take images in [0, 1] and normalise them itself, with unchanged state_dict keys."""
    model.register_buffer("input_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
    model.register_buffer("input_std", torch.tensor(std).view(-1, 1, 1), persistent=False)
    model.register_forward_pre_hook(_normalise)
    return model


def check_name(name: str) -> None:
    """Raise UserError where timm knows no model ``name``, or publishes no weights under the tag in it."""
    tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*") if "." in name else []
    if not timm.is_model(name) or ("." in name and name not in tagged):
        close = difflib.get_close_matches(name, [*timm.list_models(), *tagged], n=5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
        raise UserError(f"no model is named {name!r}: {hint}")


def create_model(
    name: str,
    num_classes: int,
    in_chans: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The model that timm knows as ``name`` (this project's models are registered there), for images in [0, 1].

    ``mean`` and ``std``, one value a channel, are subtracted and divided inside the model; without them nothing is.
    ``kwargs`` go to the model. Raises UserError on an unknown name, or one of ``mean`` and ``std`` without the other.
    """
    check_name(name)
    if (mean is None) != (std is None):
        raise UserError("give both model.mean and model.std, or neither")
    model = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **kwargs)
    return model if mean is None or std is None else normalise_input(model, mean, std)
