"""The lock file, the wheel's content and CI's script agree with the project."""

import importlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import house

ROOT = Path(__file__).resolve().parents[1]


def test_every_script_finds_what_it_imports() -> None:
    for path in (ROOT / "scripts").rglob("*.py"):
        if path.name != "__main__.py":
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def test_ci_runs_the_checks_and_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make check", "make docs", "make quickstart", "make wheel-test", "make test"} <= set(script)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name, command in {"ci": "bash .ci/run", "pages": "make docs", "release": "make dist TAG="}.items():
        text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()
        assert command in text
        assert {target for line in re.findall(r"run: make ([\w -]+)", text) for target in line.split()} <= {
            *targets,
            "TAG",
        }


@pytest.mark.parametrize("name", ["lines of the longest file", "functions over 60 lines"])
def test_no_file_and_no_function_is_longer_than_its_mark(name: str) -> None:
    count, mark = house.rows()[name]
    assert count <= mark


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "dkl/__init__.py"


def test_the_lock_covers_the_dependencies_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split(",")
    assert set(project["optional-dependencies"]) - {"trackio"} == set(extras)
    wanted = [*project["dependencies"], *(name for extra in extras for name in project["optional-dependencies"][extra])]
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.M))
    assert {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in wanted} <= locked
    assert "://" not in lock
    assert "--" not in re.sub(r"#.*", "", lock)


@pytest.mark.slow
def test_the_light_core_needs_torch_and_numpy_only() -> None:
    if importlib.util.find_spec("build") is None:
        pytest.skip("build is not installed: pip install 'dkl[dev]'")
    # The wheel in an empty environment that sees torch, numpy and what they require.
    command = ["bash", ROOT / "scripts" / "wheel_test.sh", "light"]
    environment = os.environ | {"PYTHON": sys.executable, "OWN": sys.executable}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_no_tracked_file_is_ignored() -> None:
    # The wheel leaves out what .gitignore names: a pattern such as outputs/ would drop a package of that name.
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_the_drawing_of_the_packages_agrees_with_the_import_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = {
        name.strip().removeprefix("dkl."): floor
        for floor, layer in enumerate(contract["layers"])
        for name in layer.split("|")
    }
    page = (ROOT / "CONTRIBUTING.md").read_text()
    lines = page.partition("```mermaid")[2].partition("```")[0].splitlines()
    chains = [[re.findall(r"(\w+)(?:\[|$| &)", part.strip()) for part in line.split("-->")] for line in lines]
    arrows = [
        (upper, lower)
        for chain in chains
        for uppers, lowers in itertools.pairwise(chain)
        for upper in uppers
        for lower in lowers
    ]
    assert len(arrows) > 10
    assert all(floors[upper] < floors[lower] for upper, lower in arrows)
    drawn = {name for arrow in arrows for name in arrow}
    assert all(name in drawn or f"`{name}`" in page for name in floors)
