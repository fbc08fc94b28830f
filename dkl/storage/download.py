"""Download a file over HTTP once, resume a broken transfer, and verify its hash."""

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from dkl.errors import UserError
from dkl.storage.files import file_hash, locked, write_text
from dkl.storage.network import unreachable


def fetch(url: str, path: Path, digest: str | None = None, algorithm: str = "sha256", timeout: float = 30) -> Path:
    """Download ``url`` to ``path`` unless a file with that ``digest`` is already there. Returns ``path``.

    Without a digest, the hash of the first download is stored in ``<path>.<algorithm>`` and holds from then on. A
    partial file ``<path>.part`` is resumed with a range request. Of several processes one downloads, and the others
    wait. ``timeout`` is in seconds. Raises UserError if the server cannot be reached, if it sends a web page in place
    of an unknown file, or if the bytes do not have the digest; a partial file is then deleted.
    """
    known = path.with_name(f"{path.name}.{algorithm}")
    if _is_there(path, digest, known, algorithm):
        return path
    if why := unreachable(url):
        raise _failed(url, path, why)
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        if not _is_there(path, digest, known, algorithm):  # another process may have downloaded it meanwhile
            found = _download(url, path, _expected(digest, known), algorithm, timeout)
            if digest is None:
                write_text(known, f"{found}\n")
    return path


def _expected(digest: str | None, known: Path) -> str | None:
    """The hash that the file must have; None if it is not known yet."""
    return digest or (known.read_text(encoding="utf-8").strip() if known.is_file() else None)


def _is_there(path: Path, digest: str | None, known: Path, algorithm: str) -> bool:
    """Whether ``path`` is the right file. Raises UserError if it has changed since it was downloaded."""
    if not path.is_file():
        return False
    found, expected = file_hash(path, algorithm), _expected(digest, known)
    if expected is None:  # copied there by hand
        write_text(known, f"{found}\n")
    elif digest is None and expected != found:
        raise UserError(f"{path} has changed since it was downloaded; delete it and {known.name} to fetch it again")
    return expected in (None, found)


def _failed(url: str, path: Path, why: object) -> UserError:
    return UserError(f"could not download {url}: {why}; try again, or download it yourself to {path}")


def _download(url: str, path: Path, expected: str | None, algorithm: str, timeout: float) -> str:
    """Download ``url`` to ``path`` and return its hash, which is ``expected``."""
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if expected is None and response.headers.get_content_type() == "text/html":
                raise _failed(url, path, "the server sent a web page")
            # 206 means that the server sends the rest only; any other answer starts over
            with part.open("ab" if response.status == 206 else "wb") as file:
                shutil.copyfileobj(response, file)
            if response.length:  # urllib reads a connection that closed early as the end of the file
                raise OSError(f"the connection closed {response.length} bytes early")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        if getattr(error, "code", None) != 416:  # 416, range not satisfiable: the partial file is already complete
            raise _failed(url, path, error) from None
    if (found := file_hash(part, algorithm)) != (expected or found):
        part.unlink()
        raise UserError(f"{url} does not have the {algorithm} hash {expected}; it was deleted, try again")
    part.replace(path)
    return found
