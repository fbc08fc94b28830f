"""Tab completion in a real shell, and servers that cannot be reached."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dkl.storage.fetch import unreachable

PROGRAM = f'#!/bin/sh\nexec "{sys.executable}" -m dkl "$@"\n'

SCRIPT = """
eval "$(dkl train -sc install=bash)" || exit 3
complete -p dkl
complete_line() {
    COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    hydra_bash_completion
    echo "${COMPREPLY[@]}"
}
complete_line "dkl train loss=ik"
"""


@pytest.mark.slow(minutes=0.2)
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_loss_after_the_documented_line(tmp_path: Path) -> None:
    program = tmp_path / "dkl"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        ["bash", "-c", SCRIPT], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    registered, completed = ended.stdout.strip().splitlines()[0], ended.stdout.strip().splitlines()[-1]
    assert registered.endswith(" dkl")
    assert {"loss=ikl", "loss=ikl_kd"} <= set(completed.split())


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a port on this machine at which nothing listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}/file"


def test_a_closed_port_is_unreachable_at_once(closed: str) -> None:
    started = time.monotonic()
    assert "refused" in str(unreachable(closed))
    assert time.monotonic() - started < 2


def test_a_listening_port_is_reachable(closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/file") is None


def test_a_proxy_is_asked_instead_of_the_server(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", closed)
    assert "refused" in str(unreachable("http://example.org/file"))
