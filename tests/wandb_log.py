"""Offline wandb for tests, and what it wrote, as ``wandb leet inspect`` reads it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

OFFLINE = ("logger=wandb", "logger.mode=offline")


def surroundings(folder: Path) -> dict[str, str]:
    """Environment in which wandb is silent, knows nobody and keeps its own files in ``folder``."""
    own = {f"WANDB_{kind}_DIR": str(folder) for kind in ("CACHE", "CONFIG", "DATA")}
    return own | {"WANDB_SILENT": "true", "NETRC": str(folder / "netrc")}


@contextmanager
def apart(folder: Path) -> Iterator[None]:
    """wandb in this process as in ``surroundings``; its service ends with the body."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_SWEEP_ID"):
            patch.delenv(name, raising=False)
        for name, value in surroundings(folder).items():
            patch.setenv(name, value)
        import wandb

        wandb.teardown()
        yield
        wandb.teardown()


def runs(folder: Path) -> list[Path]:
    """What wandb wrote of the run in ``folder``, a part each time it was opened, oldest first."""
    return sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_ctime_ns)


def inspect(run: Path, kind: str) -> list[dict[str, Any]]:
    """The records of ``kind`` in the log of ``run``."""
    size = sum(path.stat().st_size for path in run.glob("*.wandb"))
    return [record[kind] for record in map(json.loads, _records(run, size)) if record["type"] == kind]


@cache
def _records(run: Path, size: int) -> list[str]:
    """The lines of the log of ``run``, whose file has ``size`` bytes; reading it again would take a second."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()


def history(run: Path) -> list[dict[str, Any]]:
    """What was logged, step by step, without what wandb adds but the step; ``a.b`` is what it calls b in a."""
    added = ("_runtime", "_timestamp")
    return [{k: v for k, v in record["item"].items() if k not in added} for record in inspect(run, "history")]


def config(run: Path) -> dict[str, Any]:
    """The configuration that the run was opened with."""
    (opened,) = inspect(run, "run")
    return dict(opened["config"]["update"])


def summary(run: Path) -> dict[str, Any]:
    """The values that wandb's table of runs shows: the last of each name."""
    values: dict[str, Any] = {}
    for record in inspect(run, "summary"):
        values |= record["update"]
    return values
