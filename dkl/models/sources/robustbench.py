"""``robustbench:NAME``: models of RobustBench whose networks this project can build, from ``dkl.published``."""

from pathlib import Path
from typing import Any

import torch

from dkl.errors import UserError
from dkl.models.sources.source import Images, Request, Source
from dkl.models.sources.timm_names import CREATE
from dkl.published import PublishedNetwork, drive_url, find_network, published_entries, published_networks
from dkl.storage.fetch import fetch


def cached(network: PublishedNetwork) -> Path:
    """Return where the downloaded weights of ``network`` are kept, in torch's cache."""
    return Path(torch.hub.get_dir()) / "robustbench" / network.dataset / network.norm / f"{network.id}.pt"


def resolve(name: str, request: Request) -> Source:
    """Return RobustBench's model ``name``, with the file that was given, or the one that RobustBench keeps.

    The hash of a downloaded file is stored beside it and checked when it is used again. Raises UserError if the name is
    unknown or ambiguous, or if the weights are neither given nor can be downloaded.
    """
    network = find_network(name, dataset=request.dataset, norm=request.norm)
    entries = {(each.id, each.dataset, each.norm): each for each in published_entries()}
    entry = entries[network.id, network.dataset, network.norm]
    weights = request.checkpoint
    if weights is None and network.file is None:
        raise UserError(f"where RobustBench keeps robustbench:{network.id} is not known: add checkpoint=FILE")
    if weights is None:
        assert network.file is not None
        weights = fetch(drive_url(network.file), cached(network))
    model: dict[str, Any] = {"_target_": CREATE, "name": network.network, "title": entry.architecture}
    model |= {"num_classes": request.num_classes, "in_chans": request.shape[0]}
    if network.mean is not None and network.std is not None:
        model |= {"mean": list(network.mean), "std": list(network.std)}
    return Source(
        model=model | request.normalization | dict(request.arguments),
        weights=weights,
        label=network.id,
        norm=network.norm.lower(),
        eps=entry.eps_text,
        additional_data=entry.additional_data,
    )


CLASSES = {"cifar10": 10, "cifar100": 100}


def images(name: str) -> Images:
    """Return the images of RobustBench's model ``name``. Raises UserError if it has models of several datasets."""
    datasets = sorted({each.dataset for each in published_networks() if each.id == name})
    if len(datasets) != 1:
        found = f"is a model of {' and of '.join(datasets)}" if datasets else "is no model whose network is known"
        raise UserError(f"robustbench:{name} {found}: say which by data=…")
    return Images(datasets[0], CLASSES[datasets[0]], (3, 32, 32))
