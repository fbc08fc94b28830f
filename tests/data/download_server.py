"""A web server on 127.0.0.1 with range requests; it records the requests and can misbehave."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """``content`` is served at every path. ``ranges`` are the Range headers seen, ``sent`` the bytes of each answer.

    With ``ignore_ranges`` every answer is 200 with the whole content; ``stop_after`` closes the connection after that
    many bytes. ``status`` is an error to answer with, ``kind`` the content type.
    """

    url: str = ""
    content: bytes = b""
    status: int | None = None
    kind: str | None = None
    ignore_ranges: bool = False
    stop_after: int | None = None
    ranges: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not site.ignore_ranges else 0
            if site.status or start >= len(site.content):
                self.send_error(site.status or 416)
                return
            body = site.content[start:]
            self.send_response(206 if asked and not site.ignore_ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            if site.kind:
                self.send_header("Content-Type", site.kind)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            self.end_headers()
            site.sent.append(len(body[: site.stop_after]))  # before the client sees the end of the answer
            self.wfile.write(body[: site.stop_after])

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    return Handler


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Serve a site on a free port while the context lasts."""
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(site)) as server:
        site.url = f"http://127.0.0.1:{server.server_port}/tiny.tar.gz"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
