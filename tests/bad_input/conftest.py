"""A folder with broken files, and a check that ``dkl`` refuses a line."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.broken_files import make
from tests.cli.common import call

Refuse = Callable[[str, str], None]
"""Check that ``dkl`` refuses a line, and that its message has these words, which are separated by `` | ``.

The message is one line, after a list of tensors if weights do not fit.
"""


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
        *listed, line = ended.err.splitlines()
        assert line.startswith("error: ")
        assert not listed or ("does not fit" in line and len(listed) <= 40)
        assert "Traceback" not in ended.err
        assert ended.out == ""
        for part in words.split(" | "):
            assert part in ended.err
        assert not (broken / "results").exists()
        assert not (broken / "executed").exists()

    return check
