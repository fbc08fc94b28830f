"""``hf-hub:USER/MODEL`` and ``local-dir:FOLDER``: a folder with timm's ``config.json`` beside the weights.

``config.json`` is data: it names an architecture that timm knows, and its arguments. No code comes from the hub.
"""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from dkl.errors import UserError, first_line
from dkl.models.create import check_name
from dkl.models.sources.source import Request, Source
from dkl.models.sources.timm_names import CREATE
from dkl.network import unreachable

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, in order of preference."""

REFUSED = {"_target_", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"}
"""Arguments that ``config.json`` cannot set: what is built and loaded is decided here."""


def resolve_folder(folder: str, request: Request) -> Source:
    """Return the network of a local folder, such as ``dkl export`` writes. Raises UserError if it is not complete."""
    place, text = Path(folder), f"local-dir:{folder}"
    if not (place / "config.json").is_file():
        raise UserError(f"model={text}: there is no {place / 'config.json'}; give the folder that dkl export wrote")
    weights = request.checkpoint or next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if weights is None:
        raise UserError(f"model={text}: {folder} has no weights, neither {' nor '.join(WEIGHTS)}")
    return _source(place / "config.json", weights, text, request)


def resolve_hub(name: str, request: Request) -> Source:
    """Return the network ``user/model`` of the Hugging Face hub. The hub's cache is used; HF_ENDPOINT sets its address.

    Raises UserError if the hub does not answer, or has no such network.
    """
    text = f"hf-hub:{name}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise UserError(f"model={text} is not hf-hub:USER/MODEL, or hf-hub:USER/MODEL@REVISION")
    config = _fetch(name, ("config.json",), text)
    return _source(config, request.checkpoint or _fetch(name, WEIGHTS, text), text, request)


def _fetch(name: str, files: tuple[str, ...], text: str) -> Path:
    """Return the first of ``files`` that the repository has, from the cache or downloaded."""
    repository, _, revision = name.partition("@")
    for local in (True, False):
        if not local and (why := unreachable(constants.ENDPOINT)):
            raise UserError(
                f"model={text}: the hub {constants.ENDPOINT} does not answer ({why}); try again, or use local-dir:…"
            )
        for file in files:
            try:
                return Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=local))
            except (HfHubHTTPError, OSError, ValueError) as error:
                reason = first_line(error)
    raise UserError(f"model={text}: the hub has no {' or '.join(files)} ({reason}); check the name and your login")


def _source(config: Path, weights: Path, text: str, request: Request) -> Source:
    """Return the network that ``config`` describes, with the weights in ``weights``."""
    try:
        content: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model={text}: {config.name} cannot be read ({first_line(error)}): fetch it again") from None
    name = content.get("architecture") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise UserError(
            f"model={text}: its config.json names no timm architecture; give model=package.module:function and its "
            "file of weights as checkpoint=FILE"
        )
    check_name(name)
    about = {**content.get("pretrained_cfg", {}), **content}
    if (classes := about.get("num_classes")) not in (None, request.num_classes):
        raise UserError(f"model={text} has {classes} classes, the data {request.num_classes}: choose other data")
    own = {key: value for key, value in content.get("model_args", {}).items() if key not in REFUSED}
    constants_of = {key: about[key] for key in ("mean", "std") if key in about}
    if constants_of == {"mean": [0.0] * request.shape[0], "std": [1.0] * request.shape[0]}:
        constants_of = {}  # the network takes images in [0, 1] as they are
    model = {"_target_": CREATE, "name": name, "num_classes": request.num_classes, "in_chans": request.shape[0]}
    model |= {**constants_of, **own, **request.normalization, **request.arguments}
    return Source(model=model, weights=weights, label=text.partition(":")[2].rpartition("/")[2])
