"""What a record says of where its figures come from: weights, software, hardware, commit."""

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
    """Versions of Python and of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware(device: torch.device) -> dict[str, Any]:
    """The device that ran, with its cores and torch threads, how many such, and whether convolutions used TF32."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    found = {"device": device.type, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if world() > 1:
        found["processes"] = world()
    return found | ({"tf32": torch.backends.cudnn.allow_tf32} if device.type == "cuda" else {})


def git_commit() -> str | None:
    """The checkout's commit, with ``-dirty`` where tracked files but results differ from it; None outside one."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
