"""``hf-hub:USER/MODEL`` and ``local-dir:FOLDER``: a folder with timm's ``config.json`` beside the weights.

``config.json`` is data: it names an architecture that timm knows, and its arguments. No code comes from the hub.
"""

import json
from pathlib import Path
from typing import Any

from dkl.errors import UserError, first_line
from dkl.models.sources.source import Images, Request, Source
from dkl.models.sources.timm_names import foreign_network
from dkl.storage.fetch import WEIGHTS, fetch_from_hub
from dkl.storage.files import read_text


def resolve_folder(folder: str, request: Request) -> Source:
    """Return the network of a local folder, such as ``dkl export`` writes. Raises UserError if it is not complete."""
    place, text = Path(folder), f"local-dir:{folder}"
    config = _config_of_folder(place)
    weights = request.checkpoint or next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if weights is None:
        raise UserError(f"model={text}: {folder} has no weights, neither {' nor '.join(WEIGHTS)}")
    return _source(config, weights, text, request)


def _config_of_folder(place: Path) -> Path:
    if not (place / "config.json").is_file():
        raise UserError(f"model=local-dir:{place}: there is no {place / 'config.json'}; give what dkl export wrote")
    return place / "config.json"


def resolve_hub(name: str, request: Request) -> Source:
    """Return the network ``user/model`` of the Hugging Face hub. The hub's cache is used; HF_ENDPOINT sets its address.

    Raises UserError if the hub does not answer, or has no such network.
    """
    text = f"hf-hub:{name}"
    config = fetch_from_hub(name, ("config.json",), text)
    return _source(config, request.checkpoint or fetch_from_hub(name, WEIGHTS, text), text, request)


def images_of_folder(folder: str) -> Images | None:
    """Return the images that the ``config.json`` in ``folder`` names; None if it names none."""
    return _images(_config_of_folder(Path(folder)), f"local-dir:{folder}")


def images_of_hub(name: str) -> Images | None:
    """Return the images that the ``config.json`` of the hub's ``name`` names; None if it names none."""
    return _images(fetch_from_hub(name, ("config.json",), f"hf-hub:{name}"), f"hf-hub:{name}")


def _images(config: Path, text: str) -> Images | None:
    about = _read(config, text)
    classes, size = about.get("num_classes"), about.get("input_size")
    return Images("", int(classes), tuple(size)) if classes and size else None


def _read(config: Path, text: str) -> dict[str, Any]:
    """Return the content of ``config.json``, with what ``pretrained_cfg`` in it says. Raises UserError if it is wrong.

    ``text`` is the network's name in messages.
    """
    try:
        content = json.loads(read_text(config))
        arguments: dict[str, Any] = {} | (content.get("model_args") or {})
        about = (content.get("pretrained_cfg") or {}) | content | {"model_args": arguments}
    except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"model={text}: {config.name} cannot be read ({first_line(error)}): fetch it again") from None
    if not isinstance(about.get("architecture"), str):
        raise UserError(
            f"model={text}: its config.json names no timm architecture; give model=package.module:function and its "
            "file of weights as checkpoint=FILE"
        )
    return about


def _source(config: Path, weights: Path, text: str, request: Request) -> Source:
    """Return the network that ``config`` describes, with the weights in ``weights``."""
    about = _read(config, text)
    if (classes := about.get("num_classes")) not in (None, request.num_classes):
        raise UserError(f"model={text} has {classes} classes, the data {request.num_classes}: choose other data")
    channels = request.shape[0]
    normalization: dict[str, Any] = {key: about[key] for key in ("mean", "std") if key in about}
    if normalization == {"mean": [0.0] * channels, "std": [1.0] * channels}:
        normalization = {}  # the network takes images in [0, 1] as they are
    described = {"num_classes": request.num_classes, "in_chans": channels, **normalization}
    described |= about["model_args"] | {"name": about["architecture"]}
    model = foreign_network(described, f"config.json of model={text}") | request.normalization | dict(request.arguments)
    return Source(model=model, weights=weights, label=text.partition(":")[2].rpartition("/")[2])
