"""A quick check that a server can be reached, before a library would retry for minutes."""

import socket
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from dkl.errors import first_line

PORTS = {"http": 80, "https": 443}


def _server(url: str) -> SplitResult:
    """The server to connect to for ``url``: its proxy, if the environment sets one."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    return urlsplit(proxy) if proxy and not proxy_bypass(parts.hostname or "") else parts


def unreachable(url: str, timeout: float = 5.0) -> str | None:
    """Return why no connection to the server of ``url`` opens within ``timeout`` seconds; None if one opens."""
    server = _server(url)
    try:
        with socket.create_connection((server.hostname or "", server.port or PORTS.get(server.scheme, 80)), timeout):
            return None
    except OSError as error:
        return first_line(error)
