"""Provenance of a record: software versions, hardware and git commit."""

import os
import platform
import subprocess
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dkl.runtime.device import arithmetic_of, describe
from dkl.runtime.distributed import world

PACKAGES = ("dkl", "torch", "torchvision", "timm", "numpy", "pyautoattack")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the values."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    """The version of a package, as installed, or as it says itself if it is only on the path."""
    try:
        return version(name)
    except PackageNotFoundError:
        return str(getattr(import_module(name), "__version__", "unknown"))


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe ``device``: type, name, CPU cores, torch threads, number of processes if several, TF32 on GPUs."""
    threads = torch.get_num_threads()
    found = {"device": device.type, "name": describe(device), "cores": os.cpu_count(), "threads": threads}
    if world() > 1:
        found["processes"] = world()
    return found | arithmetic_of(device)


def git_commit() -> str | None:
    """Return the commit of the checkout, with ``-dirty`` if its code differs; None outside a checkout.

    That is if tracked files were changed, or if the package has a ``.py`` file that is not tracked. ``results`` is
    ignored: records and tables written since the commit do not change the code.
    """
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        added = git("ls-files", "--others", "--", "dkl/*.py")  # an asterisk also matches slashes here
        return git("rev-parse", "HEAD") + ("-dirty" if changed or added else "")
    except (OSError, subprocess.CalledProcessError):
        return None
