"""Builds and registers the device type ``pretend`` of ``native/backend.cpp``; see there.

It is built once per version of torch and of the source, into a cache folder: about 30 s of g++.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dkl.storage.files import locked

SOURCES = Path(__file__).with_name("native")
NAME = "pretend"


def missing() -> str:
    """What this machine lacks to build the device, in words; empty if nothing."""
    absent = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    return f"the pretend device is built by {' and '.join(absent)}" if absent else ""


@cache
def native() -> Any:
    """The compiled module; loading it registers the backend."""
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()[:12]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dkl"
    library = root / f"pretend-{torch.__version__}-{sys.version_info.major}.{sys.version_info.minor}-{key}.so"
    with locked(library.with_suffix(".lock"), wait=True):  # of several processes of pytest, one builds it
        if not library.is_file():
            _build(library)
    spec = importlib.util.spec_from_file_location("pretend_device", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(library: Path) -> None:
    """Compile ``library`` in a folder beside it, so that one that was interrupted leaves no broken library."""
    from torch.utils.cpp_extension import load

    folder = library.with_suffix(f".{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        flags = ["-O1", "-g0"]
        load(
            "pretend_device",
            [str(SOURCES / "backend.cpp")],
            build_directory=str(folder),
            extra_cflags=flags,
            is_python_module=False,
        )
        (folder / "pretend_device.so").replace(library)
    finally:
        shutil.rmtree(folder)


class DeviceModule(ModuleType):
    """``torch.pretend``: what torch asks of a device's module."""

    usable = False

    def is_available(self) -> bool:
        return self.usable

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return int(native().count)

    def current_device(self) -> int:
        return int(native().current_device())

    def set_device(self, device: object) -> None:
        native().set_device(self._index(device))

    def _index(self, device: object) -> int:
        index = device if isinstance(device, int) else torch.device(str(device)).index
        return self.current_device() if index is None else index

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed: int) -> None:
        for index in range(self.device_count()):
            native().default_generator(index).manual_seed(seed)

    def get_rng_state(self, device: object = NAME) -> torch.Tensor:
        state: torch.Tensor = native().default_generator(self._index(device)).get_state()
        return state

    def set_rng_state(self, state: torch.Tensor, device: object = NAME) -> None:
        native().default_generator(self._index(device)).set_state(state)

    def synchronize(self, device: object = None) -> None:
        return


@cache
def _registered() -> DeviceModule:
    native()
    torch.utils.rename_privateuse1_backend(NAME)
    module = DeviceModule(f"torch.{NAME}")
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return module


@contextmanager
def available() -> Iterator[None]:
    """``pretend`` is the accelerator of this process inside. It stays registered, as torch has no way back."""
    _registered().usable = True
    try:
        yield
    finally:
        _registered().usable = False


@dataclass
class Ledger:
    """Launches by name of the operation; waits by name and by the line of dkl that waited."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)


@contextmanager
def counting() -> Iterator[Ledger]:
    """Count what the body launches on the device, and what it waits for."""
    ledger = Ledger()

    def note(name: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/dkl/" in frame.filename]
        place = f"{Path(frames[-1].filename).name}: {frames[-1].name}" if frames else "outside dkl"
        ledger.waits[name, place] += 1

    native().reset(note)
    try:
        yield ledger
    finally:
        ledger.launches.update(native().launches())
        native().reset(None)
