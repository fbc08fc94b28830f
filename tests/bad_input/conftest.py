"""A folder with broken files, and a check that ``dkl`` refuses a line."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.broken_files import make
from tests.cli.common import call

Refuse = Callable[[str, str], None]
"""Check that ``dkl`` refuses a line, and that its message has these words, which are separated by `` | ``."""


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``bad/data``, ``bad/weights`` and ``bad/runs``."""
    folder = tmp_path_factory.mktemp("broken")
    make(folder / "bad")
    return folder


@pytest.fixture
def refuse(broken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run lines in the folder ``broken``."""
    monkeypatch.chdir(broken)
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    monkeypatch.delenv("DKL_DATA_DIR", raising=False)

    def check(line: str, words: str) -> None:
        ended = call(capsys, *shlex.split(line))
        assert ended.status == 2, ended
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) == 1
        assert "Traceback" not in ended.err
        assert ended.out == ""
        for part in words.split(" | "):
            assert part in ended.err
        assert not (broken / "results").exists()
        assert not (broken / "executed").exists()

    return check
