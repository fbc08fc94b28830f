"""Build a network by its name in timm or segmentation-models-pytorch, with input normalization inside the network."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import timm
import torch
from torch import Tensor, nn

from dkl.errors import UserError, first_line, needs_extra, similar
from dkl.storage.fetch import WEIGHTS, fetch, fetch_from_hub
from dkl.validation import CLASSES, FRACTION, MEAN, SIDE, STD

SMP = "smp_"
"""Beginning of the names of segmentation-models-pytorch: ``smp_<architecture>_<encoder>``."""


def _normalize(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    mean, std = module.get_buffer("input_mean"), module.get_buffer("input_std")
    return ((args[0] - mean) / std, *args[1:])


def normalize_input(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Make ``model`` take images in [0, 1] and normalize them itself; its state_dict keys do not change."""
    # Buffers, so that the constants follow the model's device and dtype; non-persistent, so that checkpoints of the
    # bare network still load.
    model.register_buffer("input_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
    model.register_buffer("input_std", torch.tensor(std).view(-1, 1, 1), persistent=False)
    model.register_forward_pre_hook(_normalize)
    return model


def check_name(name: str) -> None:
    """Raise UserError if timm knows no model ``name``, or publishes no weights under the tag in it.

    Names of segmentation-models-pytorch are checked when the network is built.
    """
    if name.startswith(SMP):
        return
    # timm.is_model ignores the tag after the dot, so the tag is checked against the published names.
    tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*") if "." in name else []
    if not timm.is_model(name) or ("." in name and name not in tagged):
        close = similar(name, [*timm.list_models(), *tagged])  # the list of all has a thousand names
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists all names"
        raise UserError(f"there is no model {name!r}: {hint}")


def check_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, key: str = "model"
) -> None:
    """Raise UserError, which names ``key``, unless ``mean`` and ``std`` have one value per channel, or are None."""
    if (mean is None) != (std is None):
        raise UserError(f"{key}.mean and {key}.std go together: set both, or neither")
    if mean is not None and std is not None and not len(mean) == len(std) == channels:
        raise UserError(
            f"{key}.mean={list(mean)} and {key}.std={list(std)} must have one value per channel, of which there are "
            f"{channels}: set both to lists of that length, or to null"
        )


def _build_smp(name: str, num_classes: int, in_chans: int, **kwargs: Any) -> nn.Module:
    """Build ``smp_<architecture>_<encoder>``, freshly initialized unless ``kwargs`` have ``encoder_weights``.

    Raises UserError if there is no such architecture or encoder, and NotInstalledError without the library.
    """
    with needs_extra("segmentation"):
        import segmentation_models_pytorch as smp
    architecture, _, encoder = name.removeprefix(SMP).partition("_")
    if not encoder:
        raise UserError(f"{name} names no encoder: write {SMP}<architecture>_<encoder>, such as smp_fpn_resnet18")
    settings = {"encoder_weights": None} | kwargs
    try:
        return smp.create_model(
            architecture, encoder_name=encoder, in_channels=in_chans, classes=num_classes, **settings
        )
    except (KeyError, TypeError, ValueError) as error:
        # A KeyError prints its message in quotes. The library lists hundreds of encoders.
        reason = textwrap.shorten(first_line(error).strip("'\""), 200, placeholder=" …")
        raise UserError(f"there is no network {name}: {reason}; such as smp_fpn_resnet18") from None


def _build_timm(name: str, **settings: Any) -> nn.Module:
    """Build timm's ``name``. Its published weights are downloaded first, to the cache that timm reads.

    By itself timm would retry for a minute. Raises UserError if the server does not answer.
    """
    if settings.get("pretrained") and not {"pretrained_cfg", "pretrained_cfg_overlay"} & settings.keys():
        published = timm.models.get_pretrained_cfg(name)
        if published is not None and not published.file:
            if published.hf_hub_id:
                fetch_from_hub(published.hf_hub_id, WEIGHTS, f"timm:{name}")
            elif published.url:
                fetch(published.url, Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(published.url).path).name))
    return timm.create_model(name, **settings)


def create_model(
    name: str,
    num_classes: Annotated[int, CLASSES],
    in_chans: Annotated[int, SIDE] = 3,
    mean: Annotated[Sequence[float] | None, MEAN] = None,
    std: Annotated[Sequence[float] | None, STD] = None,
    *,
    title: str | None = None,
    drop_rate: Annotated[float | None, FRACTION] = None,
    drop_path_rate: Annotated[float | None, FRACTION] = None,
    **kwargs: Any,
) -> nn.Module:
    """Build the model that timm knows as ``name``, for images in [0, 1]. This project's models are registered there.

    ``smp_<architecture>_<encoder>`` is a network of segmentation-models-pytorch.

    ``mean`` and ``std``, one value per channel, normalize the input inside the model; without them it is not
    normalized. ``title`` is the name printed in tables and has no effect here. ``drop_rate`` and ``drop_path_rate`` are
    timm's, for networks that have them. ``kwargs`` go to the model. Raises UserError on an unknown name, or unless
    ``mean`` and ``std`` have one value per channel.
    """
    check_name(name)
    check_normalization(mean, std, in_chans)
    kwargs |= {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    given = {key: value for key, value in kwargs.items() if value is not None}
    build = _build_smp if name.startswith(SMP) else _build_timm
    model = build(name, num_classes=num_classes, in_chans=in_chans, **given)
    return model if mean is None or std is None else normalize_input(model, mean, std)
