"""Facts that others published: RobustBench's evaluations (Croce et al. 2021), networks with their weights, and papers.

They are stored beside this module with their source and date. Nothing here was measured by this project, and nothing
needs torch.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dkl.errors import UserError, similar
from dkl.threat import parse_eps

PROTOCOL = "robustbench"
"""The name of RobustBench's protocol: its images, in their order."""

IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""The number of images on which RobustBench evaluates; ImageNet's are a fixed tenth of the validation set."""

PREPROCESSINGS: dict[str, dict[str, Any]] = {
    "Res256Crop224": {"shape": [3, 224, 224], "center_crop": 0.875, "interpolation": "bilinear"},
    "BicubicRes256Crop224": {"shape": [3, 224, 224], "center_crop": 0.875, "interpolation": "bicubic"},
    "Crop288": {"shape": [3, 288, 288], "center_crop": 0.875, "interpolation": "none"},
    "Res224": {"shape": [3, 224, 224], "center_crop": 0.875, "interpolation": "square"},
    "XCiT": {"shape": [3, 224, 224], "center_crop": 1.0, "interpolation": "bicubic"},
}
"""How RobustBench resizes and crops images of ImageNet, as values of ``data``; the first are those of data=imagenet."""

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
    """A model of RobustBench, or one that the authors of IKL and GKL published: its network by name, and its weights.

    ``arguments`` are those of the network. ``mean`` and ``std`` normalize its input; None if it takes images in
    [0, 1]. ``files`` are ids on Google Drive or addresses, one per network of an ensemble, and ``sha256`` the hash of
    a single file if its publisher states it. ``preprocessing`` is one of ``PREPROCESSINGS``. ``network`` is None
    if this project cannot build it; ``why`` says why. ``clean`` and ``robust`` are the authors' accuracies.
    """

    id: str
    dataset: str
    norm: str
    network: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    files: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: str | None = None
    parameters: int = 0
    sha256: str | None = None
    why: str = ""
    clean: float | None = None
    robust: float | None = None

    @property
    def scheme(self) -> str:
        """How its name begins: ``robustbench`` or ``official``."""
        return "robustbench" if self.clean is None else "official"

    @property
    def name(self) -> str:
        """Its name as ``model=`` takes it."""
        return f"{self.scheme}:{self.id}"

    @property
    def path(self) -> str:
        """The place of its weights in the cache and in a mirror."""
        folder = f"{self.dataset}/{self.norm}/" if self.scheme == "robustbench" else ""
        return f"{self.scheme}/{folder}{self.id}.pt"


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The paper of a method. ``key`` starts RobustBench's file names, such as ``Cui2023Decoupled``."""

    key: str
    link: str
    name: str
    authors: str
    venue: str


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
    same = ("id", "dataset", "norm", "architecture", "additional_data", "link")
    return tuple(
        PublishedEntry(
            **{key: item[key] for key in same},
            eps=parse_eps(item["eps"]),
            eps_text=item["eps"],
            clean=float(item["clean_acc"]) / 100,
            robust=min(float(item[key]) for key in ("autoattack_acc", "external") if key in item) / 100,
            paper=item["name"],
            venue=item["venue"].replace("<br>", " "),
        )
        for item in _read("robustbench_list.json")["entries"]
    )


@cache
def known_networks(scheme: str = "robustbench") -> tuple[PublishedNetwork, ...]:
    """Return RobustBench's 165 models for Linf and L2, or the ``official`` ones, whether or not they can be built."""
    content = _read("robustbench_networks.json")
    networks = []
    for item in content["networks" if scheme == "robustbench" else scheme]:
        constants, files = content["normalizations"].get(item.pop("normalization", None), {}), item.pop("file")
        mean, std = (tuple(constants[key]) if constants else None for key in ("mean", "std"))
        files = tuple(files) if isinstance(files, list) else (files,)
        networks.append(PublishedNetwork(**item, files=files, mean=mean, std=std))
    return tuple(networks)


@cache
def published_networks(scheme: str = "robustbench") -> tuple[PublishedNetwork, ...]:
    """Return the ``known_networks`` that this project can build."""
    return tuple(network for network in known_networks(scheme) if network.network is not None)


@cache
def published_papers() -> dict[str, Paper]:
    """Return papers by the word of a method's name that identifies them: IKL for IKL-AT, AWP for TRADES-AWP."""
    papers = [(item.pop("words"), Paper(**item)) for item in _read("papers.json")["papers"]]
    return {word: paper for words, paper in papers for word in words}


def find_network(name: str, *, dataset: str, norm: str | None = None, scheme: str = "robustbench") -> PublishedNetwork:
    """Return the model ``name`` of ``scheme`` on ``dataset``; ``norm`` is Linf or L2.

    The name may be the beginning of an id if only one id begins so. Raises UserError if there is no such model, if it
    is one of another dataset or norm, if it cannot be built, or if the name is ambiguous.
    """
    text, every = f"{scheme}:{name}", known_networks(scheme)
    here = [network for network in every if network.dataset == dataset]
    exact = [network for network in here if network.id.lower() == name.lower()]
    named = exact or [network for network in here if network.id.lower().startswith(name.lower())]
    if len({network.id for network in named}) > 1:
        raise UserError(f"{text} is ambiguous: choose one of {', '.join(_ids(named))}")
    if not named:
        others = sorted({f"data={each.dataset}" for each in every if each.id.lower() == name.lower()})
        if others:
            raise UserError(f"{text} is no model of data={dataset}: give {' or '.join(others)}")
        if not here:
            known = ", ".join(sorted({network.dataset for network in every}))
            raise UserError(f"{text}: no network is known for data={dataset}; choose one of {known}")
        raise UserError(f"{text} is no model of {dataset} that docs/zoo.md lists: {closest(name, here)}")
    # RobustBench gives one name to models of several norms.
    with_norm = [network for network in named if network.norm.lower() == (norm or "linf").lower()]
    if not with_norm and norm is None:
        with_norm = named
    if not with_norm:
        norms = ", ".join(f"norm={network.norm.lower()}" for network in named)
        raise UserError(f"{text} was trained for another norm than norm={norm}: give {norms}")
    network = with_norm[0]
    if network.network is None:
        raise UserError(f"{text} cannot be built here, it {network.why}: choose another one of docs/zoo.md")
    return network


def closest(name: str, networks: Iterable[PublishedNetwork]) -> str:
    """The three names among ``networks`` that resemble ``name``, or all if none does, as the end of a message."""
    ids = _ids(networks)
    close = similar(name, ids)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(ids)}"


def _ids(networks: Iterable[PublishedNetwork]) -> list[str]:
    return sorted({network.id for network in networks})


def imagenet_files() -> list[str]:
    """The names of RobustBench's 5,000 validation images of ImageNet, in the order in which it evaluates them.

    They are those of its ``helper_files/imagenet_test_image_ids.txt``, whose numbers are stored here.
    """
    return [f"ILSVRC2012_val_{number:08}.JPEG" for number in np.load(FOLDER / "robustbench_imagenet.npy").tolist()]


def address(file: str) -> str:
    """Return ``file`` if it is an address, else the one from which Google Drive sends the file of this id."""
    return (
        file if "://" in file else f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"
    )
