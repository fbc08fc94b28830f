"""Download a file over HTTP once, resume a broken transfer, and verify its hash."""

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from dkl.errors import UserError
from dkl.files import file_hash
from dkl.network import unreachable


def fetch(url: str, path: Path, digest: str, algorithm: str = "sha256", timeout: float = 30) -> Path:
    """Download ``url`` to ``path`` unless a file with that ``digest`` is already there. Returns ``path``.

    A partial file ``<path>.part`` is resumed with a range request. ``timeout`` is in seconds. Raises UserError if the
    server cannot be reached, or if the bytes do not have the digest; the partial file is then deleted.
    """
    if path.is_file() and file_hash(path, algorithm) == digest:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if why := unreachable(url):
        raise UserError(f"could not download {url}: {why}; try again, or download it yourself to {path}")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with (
            urllib.request.urlopen(request, timeout=timeout) as response,
            # 206 means that the server sends the rest only; any other answer starts over
            part.open("ab" if response.status == 206 else "wb") as file,
        ):
            shutil.copyfileobj(response, file)
            if response.length:  # urllib reads a connection that closed early as the end of the file
                raise OSError(f"the connection closed {response.length} bytes early")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        if getattr(error, "code", None) != 416:  # 416, range not satisfiable: the partial file is already complete
            raise UserError(
                f"could not download {url}: {error}; try again, or download it yourself to {path}"
            ) from None
    if file_hash(part, algorithm) != digest:
        part.unlink()
        raise UserError(f"{url} does not have the {algorithm} hash {digest}; it was deleted, try again")
    part.replace(path)
    return path
