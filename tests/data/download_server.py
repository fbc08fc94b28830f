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
    many bytes. ``status`` is an error to answer with, ``kind`` the content type. ``page`` is sent in place of the
    content as Google Drive does: after a redirect from addresses with ``redirect``, with a cookie, and until
    ``/confirmed`` is asked for; ``confirmed`` are those addresses and the cookies that came with them.
    """

    url: str = ""
    content: bytes = b""
    status: int | None = None
    kind: str | None = None
    ignore_ranges: bool = False
    stop_after: int | None = None
    page: bytes = b""
    confirmed: list[tuple[str, str | None]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/confirmed"):
                site.confirmed.append((self.path, self.headers.get("Cookie")))
            elif "redirect" in self.path:
                self.send_response(303)
                self.send_header("Location", "/warning")
                self.end_headers()
                return
            elif site.page:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Set-Cookie", "download_warning=yes")
                self.end_headers()
                self.wfile.write(site.page)
                return
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
