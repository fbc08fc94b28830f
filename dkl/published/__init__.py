"""Facts that others published: RobustBench's evaluations (Croce et al. 2021), and the networks of its models.

They are stored beside this module with their source and date. Nothing here was measured by this project, and nothing
needs torch.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dkl.errors import UserError, choose_from, similar
from dkl.threat import parse_eps

IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""The number of images on which RobustBench evaluates; ImageNet's are a fixed tenth of the validation set."""

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class PublishedEntry:
    """One evaluation of RobustBench's list. Accuracies are fractions, ``eps`` is in [0, 1] pixel units.

    ``robust`` is the lowest accuracy that RobustBench counts: that of AutoAttack, or of an attack by others.
    """

    id: str
    dataset: str
    norm: str
    eps: float
    eps_text: str
    clean: float
    robust: float
    architecture: str
    additional_data: bool
    paper: str
    venue: str
    link: str

    @property
    def n(self) -> int:
        """The number of test images."""
        return IMAGES[self.dataset]


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """The network of one of RobustBench's models, by its name in this project.

    ``mean`` and ``std`` normalize its input; None if it takes images in [0, 1]. ``file`` is the id of its weights on
    Google Drive, None if not known.
    """

    id: str
    dataset: str
    norm: str
    network: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    file: str | None


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content


@cache
def published_source() -> str:
    """Return where the list is from, and its date."""
    content = _read("robustbench_list.json")
    return f"{content['source']}, {content['date']}"


@cache
def published_entries() -> tuple[PublishedEntry, ...]:
    """Return RobustBench's list in its order: CIFAR-10, CIFAR-100 and ImageNet, for Linf and L2."""
    return tuple(map(_entry, _read("robustbench_list.json")["entries"]))


def _entry(item: dict[str, Any]) -> PublishedEntry:
    robust = min(float(item[key]) for key in ("autoattack_acc", "external") if key in item)
    return PublishedEntry(
        id=item["id"],
        dataset=item["dataset"],
        norm=item["norm"],
        eps=parse_eps(item["eps"]),
        eps_text=item["eps"],
        clean=float(item["clean_acc"]) / 100,
        robust=robust / 100,
        architecture=item["architecture"],
        additional_data=item["additional_data"],
        paper=item["name"],
        venue=item["venue"].replace("<br>", " "),
        link=item["link"],
    )


@cache
def published_networks() -> tuple[PublishedNetwork, ...]:
    """Return the networks of RobustBench's models that this project can build."""
    content = _read("robustbench_networks.json")
    found = []
    for item in content["networks"]:
        constants = content["normalizations"].get(item.pop("normalization"), {})
        mean, std = (tuple(constants[key]) if constants else None for key in ("mean", "std"))
        found.append(PublishedNetwork(**item, mean=mean, std=std))
    return tuple(found)


def find_network(name: str, *, dataset: str, norm: str | None = None) -> PublishedNetwork:
    """Return the network of RobustBench's model ``name`` on ``dataset``; ``norm`` is Linf or L2.

    The name may be the beginning of an id if only one id begins so. Raises UserError if there is no such model, or if
    the name is ambiguous.
    """
    here = [each for each in published_networks() if each.dataset == dataset]
    if not here:
        known = ", ".join(sorted({each.dataset for each in published_networks()}))
        raise UserError(f"robustbench:{name}: no network is known for data={dataset}; choose one of {known}")
    exact = [each for each in here if each.id.lower() == name.lower()]
    found = exact or [each for each in here if each.id.lower().startswith(name.lower())]
    if len({each.id for each in found}) > 1:
        raise UserError(f"robustbench:{name} is ambiguous: choose one of {', '.join(sorted({e.id for e in found}))}")
    if not found:
        ids = sorted({each.id for each in here})
        raise UserError(
            f"robustbench:{name} is no model whose network is known for {dataset}: "
            f"{choose_from(name, similar(name, ids) or ids)}; any other network is model=package.module:function"
        )
    # RobustBench gives one name to models of several norms.
    with_norm = [each for each in found if each.norm.lower() == (norm or "linf").lower()]
    if not with_norm and norm is None:
        with_norm = found
    if not with_norm:
        norms = ", ".join(f"norm={each.norm.lower()}" for each in found)
        raise UserError(f"robustbench:{name} was trained for another norm than norm={norm}: give {norms}")
    return with_norm[0]


def drive_url(file: str) -> str:
    """Return the address from which Google Drive sends the file with id ``file``, large files included."""
    return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"
