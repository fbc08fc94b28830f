"""The committed tables are those of the committed records, and links to results lead to files."""

import re
import subprocess
from pathlib import Path

import pytest

from dkl.reproduction.results import tabulate

RESULTS = Path(__file__).resolve().parents[1] / "results"


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def committed() -> bool:
    """Whether the results folder has no uncommitted changes, such as your own runs."""
    command = ["git", "-C", str(RESULTS), "status", "--porcelain", "--", "."]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and not asked.stdout


def test_committed_tables_are_those_of_the_committed_records(tmp_path: Path) -> None:
    if not committed():
        pytest.skip("results differ from the commit's")
    if not list((RESULTS / "records").glob("*.json")):
        assert not files(RESULTS / "tables")
        assert not files(RESULTS / "model_info")
        return
    (tmp_path / "records").symlink_to(RESULTS / "records")
    report = tabulate(tmp_path)
    assert not report.problems
    for folder in ("tables", "model_info"):
        assert files(tmp_path / folder) == files(RESULTS / folder), f"{folder}: run make tables, and commit"


@pytest.mark.parametrize("page", ["README.md", "../README.md"])
def test_links_lead_to_files(page: str) -> None:
    path = RESULTS / page
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", path.read_text())]
    missing = [link for link in links if link and "://" not in link and not (path.parent / link).exists()]
    assert not missing
