"""Networks by a name: ``timm:NAME``, ``hf-hub:USER/MODEL``, ``local-dir:FOLDER``, ``robustbench:NAME`` …

A name is looked up in a table, and a ``config.json`` beside weights is data: it names an architecture that timm knows,
and its arguments. No code comes from a hub or a folder. Every scheme has one entry in ``SCHEMES``: what resolves the
text after it to a ``Source``, and what knows the images that the network is for.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch

from dkl.errors import UserError, choose_from, first_line, shortened
from dkl.importing import import_object
from dkl.models.create import check_name
from dkl.models.foreign_checkpoints import weights_in
from dkl.models.sources.source import KnownImages, Request, Source
from dkl.published import PublishedNetwork, address, closest, find_network, known_networks, published_entries
from dkl.storage.checkpoint import save
from dkl.storage.fetch import WEIGHTS, fetch, fetch_from_hub
from dkl.storage.files import read_text

CREATE = "dkl.models.create_model"

LOADING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "encoder_weights", "cache_dir"}
"""Arguments of timm that load weights, which a foreign configuration cannot set: the user chooses them."""

IMAGES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet": (1000, 224)}
"""Classes of RobustBench's datasets, and the side of their images."""


def resolve(text: str, request: Request) -> Source:
    """Return the network that ``text`` names, for the images of ``request``.

    Any scheme that is not in ``SCHEMES`` is a module to import. Raises UserError if there is no such network, or if it
    does not fit the request. Weights may be downloaded, into torch's cache.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or not rest:
        forms = ", ".join(f"{name}:…" for name in SCHEMES)
        raise UserError(f"model={text} names no network: write package.module:function, or one of {forms}")
    if scheme in SCHEMES:
        return SCHEMES[scheme].resolve(rest, request)
    if not scheme.replace(".", "").isidentifier():
        known = [*SCHEMES, "package.module"]
        raise UserError(f"model={text}: {scheme!r} is no kind of network: {choose_from(scheme, known)}")
    return _imported(text, request)


def known_images(text: str, dataset: str = "") -> KnownImages | None:
    """Return the images that the network ``text`` is for; None if its name does not tell. Raises as ``resolve``.

    Of a name with models of several datasets it is that of ``dataset``. No weights are downloaded.
    """
    scheme, _, rest = text.partition(":")
    return SCHEMES[scheme].known_images(rest, dataset) if scheme in SCHEMES else None


def foreign_network(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the configuration of the network that ``values`` describe, which somebody else wrote into ``place``.

    Its ``name`` is looked up in timm's table, and nothing is imported. Raises UserError if there is no such network, or
    if ``values`` hold more than plain values.
    """
    if (instruction := _instruction(values)) is not None:
        raise UserError(
            f"{place} names no network that can be built safely: it has {shortened(instruction)!r}, but may hold only "
            "plain values, without ${…} or keys that begin with _; add model=package.module:function"
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


def _of_timm(name: str, request: Request) -> Source:
    """Return timm's network ``name``. Without a file its published weights are used, and their normalization.

    Raises UserError if there is no such network, or if no weights are published for it or for these classes.
    """
    check_name(name)
    model: dict[str, Any] = {"_target_": CREATE, "name": name, "num_classes": request.num_classes}
    model |= {"in_chans": request.shape[0], **request.normalization, **request.arguments}
    if request.checkpoint is not None:
        return Source(model=model, weights=request.checkpoint)
    published = timm.models.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        raise UserError(f"timm publishes no weights for model=timm:{name}: add checkpoint=FILE")
    if published.num_classes != request.num_classes:
        raise UserError(
            f"timm's weights of {name} have {published.num_classes} classes, the data {request.num_classes}: choose "
            "other data, or add checkpoint=FILE"
        )
    model = {"mean": list(published.mean), "std": list(published.std)} | model | {"pretrained": True}
    return Source(model=model, weights=None, label=name)


def _images_of_timm(name: str, dataset: str) -> KnownImages | None:
    """Return the images that timm's published weights of ``name`` are for; None if there are none."""
    published = timm.models.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        return None
    return KnownImages("", published.num_classes, published.input_size)


def _of_published(scheme: str, name: str, request: Request) -> Source:
    """Return the model ``name`` of RobustBench or of the authors, with the file that was given, or the published one.

    A downloaded file is kept in torch's cache; its hash is stored beside it and checked when it is used again. Raises
    UserError if the name is unknown or ambiguous, or if the weights are neither given nor can be downloaded.
    """
    network = find_network(name, dataset=request.dataset, norm=request.norm, scheme=scheme)
    entries = {(entry.id, entry.dataset, entry.norm): entry for entry in published_entries()}
    entry = entries.get((network.id, network.dataset, network.norm))
    model: dict[str, Any] = {"_target_": CREATE, "name": network.network, **network.arguments}
    model |= {"num_classes": request.num_classes, "in_chans": request.shape[0]}
    if entry is not None:
        model["title"] = entry.architecture
    if network.mean is not None and network.std is not None:
        model |= {"mean": list(network.mean), "std": list(network.std)}
    return Source(
        model=model | request.normalization | dict(request.arguments),
        weights=request.checkpoint or published_weights(network),
        label=network.id,
        norm=network.norm.lower(),
        eps=entry.eps_text if entry else "8/255",
        additional_data=bool(entry and entry.additional_data),
        preprocessing=network.preprocessing,
    )


def published_weights(network: PublishedNetwork) -> Path:
    """Return the file of the weights of ``network``, downloaded to torch's cache. Those of an ensemble are joined.

    Raises UserError if it cannot be downloaded.
    """
    path = Path(torch.hub.get_dir()) / network.path
    if len(network.files) == 1:
        return fetch(address(network.files[0]), path, network.sha256, mirrored=network.path)
    names = [f"{network.path}_m{number}.pt" for number in range(len(network.files))]  # as RobustBench names them
    parts = [
        fetch(address(file), path.with_name(Path(name).name), mirrored=name)
        for file, name in zip(network.files, names, strict=True)
    ]
    if not path.is_file():
        states = [weights_in(part, set()) for part in parts]
        joined = {f"models.{i}.{key}": value for i, state in enumerate(states) for key, value in state.items()}
        save(path, joined)
    return path


def _images_of_published(scheme: str, name: str, dataset: str) -> KnownImages:
    """Return the images of a published model. Raises UserError if the name has models of several datasets, or none."""
    networks = known_networks(scheme)
    datasets = sorted({network.dataset for network in networks if network.id == name})
    if not datasets:
        raise UserError(f"{scheme}:{name} is no model that docs/zoo.md lists: {closest(name, networks)}")
    chosen = [dataset] if dataset in datasets else datasets
    if len(chosen) > 1:
        raise UserError(f"{scheme}:{name} is a model of {' and of '.join(chosen)}: say which by data=…")
    classes, side = IMAGES[chosen[0]]
    return KnownImages(chosen[0], classes, (3, side, side))


def _file(scheme: str, name: str, files: tuple[str, ...]) -> Path:
    """Return the first of ``files`` in the folder ``name``, or in this repository of the Hugging Face hub.

    The hub's cache is used; HF_ENDPOINT sets its address. Raises UserError if there is no such file, or if the hub does
    not answer.
    """
    if scheme == "hf-hub":
        return fetch_from_hub(name, files, f"hf-hub:{name}")
    places = [Path(name, file) for file in files]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        missing = " or ".join(map(str, places))
        raise UserError(f"model=local-dir:{name}: there is no {missing}; give what dkl export wrote")
    return found


def _of_config(scheme: str, name: str, request: Request) -> Source:
    """Return the network of a folder, such as ``dkl export`` writes, or of a repository ``user/model`` of the hub."""
    text = f"{scheme}:{name}"
    description = _description(scheme, name)
    if (classes := description.get("num_classes")) not in (None, request.num_classes):
        raise UserError(f"model={text} has {classes} classes, the data {request.num_classes}: choose other data")
    weights = request.checkpoint or _file(scheme, name, WEIGHTS)
    channels = request.shape[0]
    normalization: dict[str, Any] = {key: description[key] for key in ("mean", "std") if key in description}
    if normalization == {"mean": [0.0] * channels, "std": [1.0] * channels}:
        normalization = {}  # the network takes images in [0, 1] as they are
    values = {"num_classes": request.num_classes, "in_chans": channels, **normalization}
    values |= description["model_args"] | {"name": description["architecture"]}
    model = foreign_network(values, f"config.json of model={text}") | request.normalization | dict(request.arguments)
    return Source(model=model, weights=weights, label=name.rpartition("/")[2])


def _images_of_config(scheme: str, name: str, dataset: str) -> KnownImages | None:
    """Return the images that a ``config.json`` names; None if it names none."""
    description = _description(scheme, name)
    classes, size = description.get("num_classes"), description.get("input_size")
    return KnownImages("", int(classes), tuple(size)) if classes and size else None


def _description(scheme: str, name: str) -> dict[str, Any]:
    """Return the content of ``config.json``, with its ``pretrained_cfg``. Raises UserError if it is wrong."""
    config, text = _file(scheme, name, ("config.json",)), f"{scheme}:{name}"
    try:
        content = json.loads(read_text(config))
        arguments: dict[str, Any] = {} | (content.get("model_args") or {})
        description = (content.get("pretrained_cfg") or {}) | content | {"model_args": arguments}
    except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"model={text}: {config.name} cannot be read ({first_line(error)}): fetch it again") from None
    if not isinstance(description.get("architecture"), str):
        raise UserError(
            f"model={text}: its config.json names no timm architecture; give model=package.module:function and its "
            "file of weights as checkpoint=FILE"
        )
    return description


def _imported(text: str, request: Request) -> Source:
    """Return the network that the function in ``text`` makes; ``num_classes``, ``in_chans`` and ``shape`` are passed if
    it takes them.

    Raises UserError if it cannot be imported, or if no file of weights was given.
    """
    function = import_object(text)
    if request.checkpoint is None:
        raise UserError(f"model={text} has no weights: add checkpoint=FILE")
    try:
        parameters = [*inspect.signature(function).parameters]
    except (TypeError, ValueError):  # builtins have none
        parameters = []
    channels, shape = request.shape[0], list(request.shape)
    facts = {"num_classes": request.num_classes, "in_chans": channels, "in_channels": channels, "shape": shape}
    model: dict[str, Any] = {"_target_": text.replace(":", ".")}
    model |= {key: value for key, value in facts.items() if key in parameters} | dict(request.arguments)
    if constants := request.normalization:
        wrapper = {"_target_": "dkl.models.sources.source.normalized", "name": text.rpartition(":")[2]}
        model = {**wrapper, "network": model, **constants}
    return Source(model=model, weights=request.checkpoint)


class _Scheme(NamedTuple):
    resolve: Callable[[str, Request], Source]
    known_images: Callable[[str, str], KnownImages | None]


SCHEMES = {
    "timm": _Scheme(_of_timm, _images_of_timm),
    **{
        scheme: _Scheme(partial(resolve, scheme), partial(images, scheme))
        for resolve, images, *schemes in (
            (_of_config, _images_of_config, "hf-hub", "local-dir"),
            (_of_published, _images_of_published, "robustbench", "official"),
        )
        for scheme in schemes
    },
}
