"""Download a file over HTTP once, resume a broken transfer, and verify its hash."""

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from dkl.errors import UserError
from dkl.storage.files import file_hash, write_text
from dkl.storage.network import unreachable


def fetch(url: str, path: Path, digest: str | None = None, algorithm: str = "sha256", timeout: float = 30) -> Path:
    """Download ``url`` to ``path`` unless a file with that ``digest`` is already there. Returns ``path``.

    Without a digest, the hash of the first download is stored in ``<path>.<algorithm>`` and holds from then on. A
    partial file ``<path>.part`` is resumed with a range request. ``timeout`` is in seconds. Raises UserError if the
    server cannot be reached, if it sends a web page in place of an unknown file, or if the bytes do not have the
    digest; a partial file is then deleted.
    """
    known = path.with_name(f"{path.name}.{algorithm}")
    expected = digest or (known.read_text(encoding="utf-8").strip() if known.is_file() else None)
    if path.is_file():
        found = file_hash(path, algorithm)
        if expected == found:
            return path
        if digest is None and expected is None:  # copied there by hand
            write_text(known, f"{found}\n")
            return path
        if digest is None:
            raise UserError(f"{path} has changed since it was downloaded; delete it and {known.name} to fetch it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    by_hand = f"try again, or download it yourself to {path}"
    if why := unreachable(url):
        raise UserError(f"could not download {url}: {why}; {by_hand}")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if expected is None and response.headers.get_content_type() == "text/html":
                raise UserError(f"could not download {url}: the server sent a web page; {by_hand}")
            # 206 means that the server sends the rest only; any other answer starts over
            with part.open("ab" if response.status == 206 else "wb") as file:
                shutil.copyfileobj(response, file)
            if response.length:  # urllib reads a connection that closed early as the end of the file
                raise OSError(f"the connection closed {response.length} bytes early")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        if getattr(error, "code", None) != 416:  # 416, range not satisfiable: the partial file is already complete
            raise UserError(f"could not download {url}: {error}; {by_hand}") from None
    if (found := file_hash(part, algorithm)) != (expected or found):
        part.unlink()
        raise UserError(f"{url} does not have the {algorithm} hash {expected}; it was deleted, try again")
    part.replace(path)
    if digest is None:
        write_text(known, f"{found}\n")
    return path
