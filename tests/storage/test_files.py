"""A file is complete or unchanged, even if the process that writes it is killed; locks exclude and end."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dkl.errors import BusyError, FullDiskError
from dkl.storage.files import digest, file_hash, is_locked, locked, write_atomically, write_text

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from dkl.storage.files import write_atomically

def write(file):
    file.write(b"half of the new ")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.parametrize("old", [None, "the old content"])
def test_a_process_killed_while_writing_leaves_the_file_as_it_was(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(path)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old
    assert not [part for part in tmp_path.glob("*") if part != path and not part.name.startswith(".")]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_two_writers_do_not_share_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"

    def write_slowly(file: object) -> None:
        monkeypatch.setattr(os, "getpid", lambda: 4242)  # another process, in the middle of this one's writing
        write_text(path, "of the other")
        file.write(b"of this one")

    write_atomically(path, write_slowly)
    assert path.read_text() == "of this one"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_the_hash_of_a_file_that_does_not_fit_one_read(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert file_hash(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_digest_is_the_start_of_the_hash_of_sorted_json() -> None:
    expected = hashlib.sha256(b'{"a": [1, 0.5, null], "b": {"c": "x"}}').hexdigest()
    for length in (8, 16, 64):
        assert digest({"b": {"c": "x"}, "a": [1, 0.5, None]}, length) == expected[:length]


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.storage.files.LOCK_TIMEOUT", 0.05)
    path = tmp_path / "new" / ".lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(BusyError, match="training here; wait for it"), locked(path, "training here"):
            pass
    assert not is_locked(path)
    with locked(path):
        pass


def test_a_killed_process_loses_its_lock(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from dkl.storage.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_locked(tmp_path / "lock")
        process.kill()
        process.wait()
    assert not is_locked(tmp_path / "lock")


LIMIT = """
import resource, sys
from pathlib import Path
import torch
from dkl.storage import checkpoint
from dkl.errors import FullDiskError

path = Path(sys.argv[1])
checkpoint.save(path, {"epoch": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    checkpoint.save(path, {"epoch": 2, "weights": torch.zeros(100_000)})
except FullDiskError as error:
    print(error)
print(checkpoint.read(path), [file.name for file in path.parent.iterdir()])
"""


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMIT, str(tmp_path / "checkpoint.pt")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    message, kept = ended.stdout.splitlines()
    assert "0.4 MB are needed; the file of before is kept" in message
    assert kept == "{'epoch': 1} ['checkpoint.pt']"


def test_a_full_disk_is_one_line_with_the_space_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "table.md"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullDiskError, match=r"the disk is full, 2\.0 MB are needed and .* MB are free; the file of"):
        write_text(path, "x" * 2_000_000)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.md"]
