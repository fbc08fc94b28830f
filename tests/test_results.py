"""The reference results are those of their records and never count as a user's, and links to results lead to files."""

import re
import subprocess
from pathlib import Path

import pytest

from dkl import assembly, records
from dkl.config import compose_run
from dkl.manifests import Request, plan
from dkl.reporting import write_tables
from dkl.reproduction.planning import parse, plan_jobs
from scripts.insert_claims import with_claims

RESULTS = Path(__file__).resolve().parents[1] / "results"
REFERENCE = RESULTS / "reference"
TRAINED = (
    *("camvid-mini", "cifar10-mini", "cifar10-mini-overfitting", "cifar10-mini-semi", "cifar100-mini-kd"),
    *("cifar10-regime", "cifar10-frontier", "cifar100-frontier"),
)
"""The experiments whose runs the reference results have."""


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def committed() -> bool:
    """Whether the reference results have no uncommitted changes, such as records that are about to be published."""
    command = ["git", "-C", str(REFERENCE), "status", "--porcelain", "--", "."]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and not asked.stdout


def test_reference_tables_are_those_of_the_reference_records(tmp_path: Path) -> None:
    if not committed():
        pytest.skip("results differ from the commit's")
    (tmp_path / "records").symlink_to(REFERENCE / "records")
    report = write_tables(tmp_path)
    assert not report.problems
    for folder in ("tables", "model_info"):
        assert files(tmp_path / folder) == files(REFERENCE / folder), f"{folder}: run make publish, and commit"


def test_the_page_opens_with_the_claims() -> None:
    page, board = RESULTS / "README.md", REFERENCE / "tables" / "claims.md"
    text = board.read_text() if board.exists() else ""
    assert with_claims(page.read_text(), text) == page.read_text(), "run make publish, and commit"


def test_a_fresh_clone_trains_what_the_reference_results_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "preflight", lambda cfg: None)  # building the network takes most of the time
    (tmp_path / "reference").symlink_to(REFERENCE)
    command = ["experiment=cifar10-mini-semi", "row=labels-alone", "seed=0"]
    for results, done in ((tmp_path, False), (REFERENCE, True)):
        (planned,) = plan_jobs(parse([*command, f"paths.results={results}"]))
        assert planned.done == done


def test_reference_runs_keep_their_hashes() -> None:
    """What an experiment trains today is what its records say, also if a default has become the official one."""
    request = Request(seeds=(0, 1, 2, 3))
    planned = {compose_run(job.train).config_hash for name in TRAINED for job in plan(name, request)}
    found, _ = records.load_all(REFERENCE / "records")
    assert {record.config_hash for record in found} <= planned


@pytest.mark.parametrize("page", ["README.md", "../README.md"])
def test_links_lead_to_files(page: str) -> None:
    path = RESULTS / page
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", path.read_text())]
    missing = [link for link in links if link and "://" not in link and not (path.parent / link).exists()]
    assert not missing
