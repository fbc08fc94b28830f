"""The commit in a record is git's, and changed files under results do not make it dirty, but new code does."""

import subprocess
from pathlib import Path

import pytest

from dkl.evaluation import make_record


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_and_whether_the_code_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_record, "__file__", str(tmp_path / "dkl" / "evaluation" / "make_record.py"))
    assert make_record.git_commit() is None
    git(tmp_path, "init", "-q")
    for name in ("code.py", "results/table.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "results" / "table.md").write_text("two")
    assert make_record.git_commit() == head
    (tmp_path / "code.py").write_text("two")
    assert make_record.git_commit() == head + "-dirty"
    git(tmp_path, "checkout", "code.py")
    (tmp_path / "notes.py").write_text("outside the package")
    assert make_record.git_commit() == head
    (tmp_path / "dkl" / "losses").mkdir(parents=True)
    (tmp_path / "dkl" / "losses" / "mine.py").write_text("not tracked")
    assert make_record.git_commit() == head + "-dirty"
