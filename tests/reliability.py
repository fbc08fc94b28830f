"""Figures of the tests of endurance, kept in ``results/reliability``."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dkl.evaluation.make_record import git_commit

FOLDER = Path(__file__).resolve().parents[1] / "results" / "reliability"


def _processor() -> str:
    """The vendor of the processor, or its architecture if the system does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), platform.machine())


def write_report(name: str, figures: Mapping[str, Any]) -> None:
    """Write ``<name>.json``: ``figures``, with the command, the commit, the versions and the machine."""
    about = {
        "command": "make test-endurance",
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hardware": f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores",
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(about | dict(figures), indent=2) + "\n")
