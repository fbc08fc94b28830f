"""Files of a repository of the Hugging Face hub, from its cache or downloaded."""

import re
from pathlib import Path
from typing import Any

from dkl.errors import UserError, first_line
from dkl.storage.network import unreachable

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, in order of preference."""


def fetch(name: str, files: tuple[str, ...], text: str) -> Path:
    """Return the first of ``files`` that the repository ``name`` has, as ``user/model`` or ``user/model@revision``.

    Raises UserError, which names the network as ``text``, if the hub does not answer or has no such file.
    """
    from huggingface_hub import constants, hf_hub_download  # a machine without a network may lack it
    from huggingface_hub.errors import HfHubHTTPError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise UserError(f"model={text} is not hf-hub:USER/MODEL, or hf-hub:USER/MODEL@REVISION")
    repository, _, revision = name.partition("@")
    place: dict[str, Any] = {"revision": revision or None, "endpoint": constants.ENDPOINT}
    for local in (True, False):
        if not local and (why := unreachable(constants.ENDPOINT)):
            raise UserError(
                f"model={text}: the hub {constants.ENDPOINT} does not answer ({why}); try again, or "
                "give files: local-dir:FOLDER, or checkpoint=FILE"
            )
        for file in files:
            try:
                return Path(hf_hub_download(repository, file, **place, local_files_only=local))
            except (HfHubHTTPError, OSError, ValueError) as error:
                reason = first_line(error)
        if constants.HF_HUB_OFFLINE:
            raise UserError(
                f"model={text} is not in the cache, and HF_HUB_OFFLINE is set: unset it, or give checkpoint=FILE"
            )
    raise UserError(f"model={text}: the hub has no {' or '.join(files)} ({reason}); check the name and your login")
