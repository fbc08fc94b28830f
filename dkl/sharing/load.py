"""``load_model``: a network by its name, folder or hub id, with its weights, in one call."""

import re
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from dkl.config import DataConfig, EvaluateConfig, compose_config, typed
from dkl.config.compose import choices
from dkl.errors import UserError, choose_from
from dkl.evaluation.subject import foreign_subject, load_network, run_subject
from dkl.models.sources import is_graph, known_images
from dkl.models.sources.graphs import load_graph
from dkl.published import known_networks
from dkl.runtime.device import usable_device


def load_model(
    name: str | Path,
    *,
    checkpoint: str | Path | None = None,
    data: str | None = None,
    norm: str | None = None,
    weights: str | None = None,
    trust: bool = False,
    device: torch.device | str | int = "cpu",
    **arguments: Any,
) -> nn.Module:
    """Return the network ``name`` with its weights, in eval mode on ``device``, for images ``[B, C, H, W]`` in [0, 1].

    ``name`` is the folder of a run (whose ``weights`` are last, average or best), a folder that ``dkl export`` wrote, a
    TorchScript or ExportedProgram file, a hub id such as ``user/model``, a name of RobustBench or of timm, or any
    ``model=`` of ``dkl evaluate`` such as ``package.module:function``. ``checkpoint`` is a file with the weights.
    ``data`` is a choice of ``configs/data``: the images that a network is for, if its name does not tell. ``norm``
    chooses among RobustBench's models of one name. ``trust`` loads a file that is a program (TorchScript,
    ExportedProgram), which can run any code on this machine. ``arguments`` go to the network's constructor; ``mean``
    and ``std`` among them normalize its input. Raises UserError if there is no such network, or if the weights do not
    fit.

    >>> model = load_model("timm:wrn10_2", checkpoint="weights.pt", data="cifar100")  # doctest: +SKIP
    """
    place, where = Path(name), usable_device(device, torch.float32)
    if (place / "config.yaml").is_file():
        config = EvaluateConfig(run=str(place), weights=weights)
        return load_network(run_subject(config))[0].to(where)
    file = checkpoint
    network: str | None = str(name)
    if is_graph(place):
        if data is None:  # its images cannot be checked
            return load_graph(str(place), trust=trust).to(where)
        file, network = place, None
    elif ":" not in str(name):
        network = _scheme(str(name))
    asked = EvaluateConfig(
        network=network,
        checkpoint=None if file is None else str(file),
        data=_data(data, network),
        norm=norm,  # type: ignore[arg-type]  # None is not given
        weights=weights,
        mean=arguments.pop("mean", None),
        std=arguments.pop("std", None),
        trust=trust,
        arguments=arguments,
    )
    return load_network(foreign_subject(asked))[0].to(where)


def _data(name: str | None, network: str | None) -> DataConfig:
    """Return the choice ``name`` of ``configs/data``, or the images that ``network`` is for.

    Raises UserError if neither is known.
    """
    if name is None:
        images = known_images(network) if network else None
        if images is None:
            raise UserError(f"{network or 'the file'} does not say its images: add data=NAME of configs/data")
        return DataConfig(images.dataset, images.num_classes, list(images.shape), eps="0", source=None)
    if name not in (known := choices("data")):
        raise UserError(f"data={name!r} is no choice of configs/data: {choose_from(name, known)}")
    config = typed(compose_config("evaluate", [f"data={name}"]), EvaluateConfig).data
    assert config is not None
    return config


def _scheme(name: str) -> str:
    """Return ``name``, which has no colon, as a text that ``dkl.models.sources`` resolves."""
    place = Path(name)
    if (place / "config.json").is_file():
        return f"local-dir:{name}"
    if place.is_file():
        raise UserError(f"{name} is a file of weights: load_model('timm:NAME', checkpoint={name!r}) says their network")
    if place.is_dir():
        raise UserError(f"{name} has neither config.yaml (a run) nor config.json (what dkl export writes)")
    for scheme in ("robustbench", "official"):
        if any(each.id == name and each.network for each in known_networks(scheme)):  # those that can be built
            return f"{scheme}:{name}"
    if timm.is_model(name):
        return f"timm:{name}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        return f"hf-hub:{name}"
    forms = "a folder of a run or an export, user/model of a hub, or package.module:function"
    raise UserError(f"there is no network {name!r}: give {forms}, or a name of timm or RobustBench")
