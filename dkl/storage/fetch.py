"""Downloads: a file of a server, resumed and verified by its hash, and files of the Hugging Face hub from its cache.

``DKL_MIRROR``, a folder or an address, has precedence over a file's own address. Google Drive sends a large file after
a page that asks for confirmation, and a page in place of a file that was downloaded too often: both are recognized.

Whether a server answers is checked first, before a library would retry for minutes.
"""

import http.client
import os
import re
import shutil
import socket
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from dkl.errors import UserError, first_line
from dkl.storage.files import file_hash, locked, write_text

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a repository of the hub, in order of preference."""

PORTS = {"http": 80, "https": 443}


def unreachable(url: str) -> str | None:
    """Return why no connection to the server of ``url`` opens within five seconds; None if one opens.

    The server is its proxy, if the environment sets one.
    """
    server = urlsplit(url)
    proxy = urllib.request.getproxies().get(server.scheme)
    if proxy and not urllib.request.proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy)
    try:
        with socket.create_connection((server.hostname or "", server.port or PORTS.get(server.scheme, 80)), 5.0):
            return None
    except OSError as error:
        return first_line(error)


RETRIES = 5
"""How often a download whose connection broke continues by itself, if more of the file has arrived."""

TIMEOUT = 30.0
"""Seconds without an answer after which a connection counts as broken."""

PAGE = 1_000_000
"""Bytes of a web page that are read."""


def fetch(
    url: str, path: Path, digest: str | None = None, algorithm: str = "sha256", *, mirrored: str | None = None
) -> Path:
    """Download ``url`` to ``path`` unless a file with that ``digest`` is already there. Returns ``path``.

    Without a digest, the hash of the first download is stored in ``<path>.<algorithm>`` and holds from then on. A
    partial file ``<path>.part`` is resumed with a range request. Of several processes one downloads, and the others
    wait. ``mirrored`` is the file's path in the mirror ``DKL_MIRROR``, by default its name; a mirror without the file
    is not used.

    Raises UserError if the server cannot be reached, if it sends a web page in place of an unknown file, or if the
    bytes do not have the digest; a partial file is then deleted.
    """
    known = path.with_name(f"{path.name}.{algorithm}")
    if _is_there(path, digest, known, algorithm):
        return path
    places, name = [url], mirrored or path.name
    if mirror := os.environ.get("DKL_MIRROR"):
        if urlsplit(mirror).scheme in PORTS:
            places.insert(0, f"{mirror.rstrip('/')}/{quote(name)}")
        elif Path(mirror).is_dir():
            places.insert(0, (Path(mirror).resolve() / name).as_uri())
        else:
            raise UserError(f"DKL_MIRROR={mirror} is no folder and no http address: set it to one, or unset it")
    elif why := unreachable(url):
        raise _failed(url, path, why)
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        if not _is_there(path, digest, known, algorithm):  # another process may have downloaded it meanwhile
            downloaded = _first_of(places, path, _expected(digest, known), algorithm)
            if digest is None:
                write_text(known, f"{downloaded}\n")
    return path


def _expected(digest: str | None, known: Path) -> str | None:
    """The hash that the file must have; None if it is not known yet."""
    return digest or (known.read_text(encoding="utf-8").strip() if known.is_file() else None)


def _is_there(path: Path, digest: str | None, known: Path, algorithm: str) -> bool:
    """Whether ``path`` is the right file. Raises UserError if it has changed since it was downloaded."""
    if not path.is_file():
        return False
    actual, expected = file_hash(path, algorithm), _expected(digest, known)
    if expected is None:  # copied there by hand
        write_text(known, f"{actual}\n")
    elif digest is None and expected != actual:
        raise UserError(f"{path} has changed since it was downloaded; delete it and {known.name} to fetch it again")
    return expected in (None, actual)


def _failed(url: str, path: Path, why: object) -> UserError:
    return UserError(f"could not download {url}: {why}; try again, or download it yourself to {path}")


def _first_of(places: list[str], path: Path, expected: str | None, algorithm: str) -> str:
    """Download the file from the first of ``places`` that has it. Returns its hash."""
    *mirrors, url = places
    for mirror in mirrors:
        try:
            return _download(mirror, path, expected, algorithm)
        except UserError as error:
            if not isinstance(error.__cause__, urllib.error.URLError):
                raise
    if mirrors and (why := unreachable(url)):
        raise _failed(url, path, f"{mirrors[0]} does not have it, and {why}")
    return _download(url, path, expected, algorithm)


def _download(url: str, path: Path, expected: str | None, algorithm: str) -> str:
    """Download ``url`` to ``path`` and return its hash, which is ``expected``. A broken connection is resumed."""
    part = path.with_name(path.name + ".part")
    for attempt in range(RETRIES + 1):
        have = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, path, part, have, expected)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            code = getattr(error, "code", None)
            if code == 416:  # range not satisfiable: the partial file is already complete
                break
            arrived = part.exists() and part.stat().st_size > have
            if not arrived or attempt == RETRIES:
                hint = " (too many downloads, or a file that is not shared)" if code in (403, 429) else ""
                raise _failed(url, path, f"{error}{hint}") from error
    actual = file_hash(part, algorithm)
    if actual != (expected or actual):
        part.unlink()
        raise UserError(f"{url} does not have the {algorithm} hash {expected}; it was deleted, try again")
    part.replace(path)
    return actual


def _receive(url: str, path: Path, part: Path, have: int, expected: str | None) -> None:
    """Append the rest of the file, of which ``part`` has ``have`` bytes. Raises OSError if the connection breaks."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    headers = {"Range": f"bytes={have}-"} if have else {}
    response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    of_drive = (urlsplit(url).hostname or "").endswith(".google.com")
    if response.headers.get_content_type() == "text/html" and (expected is None or of_drive):
        with response:
            page = _Page(response.read(PAGE).decode(errors="replace"))
        address = page.confirmation(response.url)
        if address is None:
            raise _failed(url, path, page.problem)
        response = opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
        if response.headers.get_content_type() == "text/html":
            with response:
                raise _failed(url, path, _Page(response.read(PAGE).decode(errors="replace")).problem)
    with response:
        # 206 means that the server sends the rest only; any other answer starts over
        with part.open("ab" if response.status == 206 else "wb") as file:
            shutil.copyfileobj(response, file)
        if getattr(response, "length", None):  # urllib reads a connection that closed early as the end of the file
            raise OSError(f"the connection closed {response.length} bytes early")


class _Page(HTMLParser):
    """A web page in place of a file: its text, and the form of Google Drive that confirms a download."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action")
        if tag == "input" and self.action and values.get("type") == "hidden":
            self.fields[values.get("name", "")] = values.get("value", "")

    def confirmation(self, url: str) -> str | None:
        """The address that the form of the page at ``url`` asks for; None without one."""
        return f"{urljoin(url, self.action)}?{urlencode(self.fields)}" if self.action else None

    @property
    def problem(self) -> str:
        """What the page says in place of the file."""
        if "Quota exceeded" in self.text or "Too many users" in self.text:
            return "Google Drive's quota for this file is exceeded: wait a day, or set DKL_MIRROR"
        return "the server sent a web page"


def fetch_from_hub(name: str, files: tuple[str, ...], text: str) -> Path:
    """Return the first of ``files`` that the repository ``name`` has, as ``user/model`` or ``user/model@revision``.

    It is downloaded unless it lies in the hub's cache. Raises UserError, which names the network as ``text``, if the
    hub does not answer or has no such file.
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
