"""Where a record's values come from: software versions, hardware and git commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dkl.distributed import world

PACKAGES = ("dkl", "torch", "torchvision", "timm", "numpy", "pyautoattack")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the values."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe ``device``: type, name, CPU cores, torch threads, number of processes if several, TF32 on GPUs."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    found = {"device": device.type, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if world() > 1:
        found["processes"] = world()
    # TF32 rounds the inputs of convolutions to 10 bits, which changes a few flags.
    return found | ({"tf32": torch.backends.cudnn.allow_tf32} if device.type == "cuda" else {})


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
