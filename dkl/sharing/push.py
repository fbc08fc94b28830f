"""``push``: uploads an exported network to the Hugging Face hub (extra ``hub``). HF_ENDPOINT sets the hub's address."""

import re
from collections.abc import Sequence
from pathlib import Path

from dkl.errors import UserError, first_line, needs_extra
from dkl.storage.fetch import unreachable


def check_push(name: str) -> None:
    """Raise UserError unless ``name`` is a repository ``user/name`` of a hub that answers."""
    with needs_extra("hub"):
        from huggingface_hub import constants
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"push={name} must be a repository of the hub, such as push=user/name")
    if why := unreachable(constants.ENDPOINT):
        raise UserError(f"push={name}: the hub {constants.ENDPOINT} does not answer ({why}); try again later")


def push(folder: Path, files: Sequence[Path], name: str) -> str:
    """Upload ``files`` of ``folder`` to the hub's repository ``name``, which is created if it is missing.

    Nothing else in ``folder`` is uploaded. Returns the repository's address. Raises UserError if the hub refuses it.
    """
    check_push(name)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    api, only = HfApi(endpoint=constants.ENDPOINT), [path.relative_to(folder).as_posix() for path in files]
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=only, commit_message="Upload by dkl export")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"push={name}: {first_line(error)}; log in by hf auth login, and check the name") from None
    return f"{constants.ENDPOINT}/{name}"
