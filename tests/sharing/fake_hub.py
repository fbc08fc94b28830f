"""A small part of the Hugging Face hub on 127.0.0.1: create a repository, commit files to it, download them."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class Hub:
    """``files`` by repository and path; ``requests`` are the methods and paths that were asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: bool = False


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, content: object, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            hub.requests.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            parts = self.path.split("/")
            if hub.refuse:
                self.answer({"error": "Invalid username or password."}, 401)
            elif self.path == "/api/repos/create":
                self.answer({"url": f"{hub.url}/user/name", "name": "user/name", "id": "1"})
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif "preupload" in parts:
                asked = json.loads(body)["files"]
                modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self.answer({"files": [{"path": file["path"], **modes} for file in asked]})
            else:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        hub.files["/".join([*parts[3:5], line["value"]["path"]])] = content
                about = {"commitUrl": f"{hub.url}/user/name/commit/{COMMIT}", "commitOid": COMMIT}
                self.answer({**about, "success": True, "hookOutput": ""})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            user, name, _, _, *path = self.path.lstrip("/").split("/")
            content = hub.files.get("/".join([user, name, *path]))
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    return Handler


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Serve a hub on a free port while the context lasts."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
