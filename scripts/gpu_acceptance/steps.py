"""Steps of a part: each measures something and says what is expected. Every step's result is written at once."""

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dkl.runtime.device import pick_device
from dkl.storage.files import write_text

SECONDS = 8 * 60
"""Of a part. A step that would begin later, or last longer than is left, is left out."""


@dataclass(frozen=True)
class Setting:
    """Where and in which size the steps run: files are written to ``out``."""

    out: Path
    device: torch.device
    small: bool

    @classmethod
    def here(cls, out: Path) -> "Setting":
        """This machine's accelerator; without one only the small size is sensible."""
        out.mkdir(parents=True, exist_ok=True)
        return cls(out, pick_device("auto"), bool(os.environ.get("SMALL")))

    def pick(self, full: Any, small: Any) -> Any:
        """``full``, or ``small`` in the small size."""
        return small if self.small else full


@dataclass(frozen=True)
class Step:
    """``measure`` returns what was found, by name. ``expected`` says what it should be, and where that is from.

    ``seconds`` is about how long it takes in full size.
    """

    name: str
    expected: str
    measure: Callable[[Setting], dict[str, Any]]
    seconds: int = 30


def run_part(number: int, steps: Sequence[Step], setting: Setting) -> Path:
    """Run ``steps``, a failing one too, and write what they find to a file after each; returns its path."""
    path = setting.out / f"part-{number}.json"
    started, found = time.monotonic(), []
    for step in steps:
        begun = time.monotonic()
        entry: dict[str, Any] = {"step": step.name, "expected": step.expected}
        if not setting.small and begun - started + step.seconds > SECONDS:
            entry["left_out"] = f"{SECONDS - (begun - started):.0f} s were left, about {step.seconds} s are needed"
        else:
            print(f"== {step.name}", flush=True)
            try:
                entry["found"] = step.measure(setting)
            except Exception as error:  # the other steps are worth their time
                entry["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
                entry["traceback"] = traceback.format_exc()
        entry["seconds"] = round(time.monotonic() - begun, 1)
        found.append(entry)
        write_text(path, json.dumps({"part": number, "small": setting.small, "steps": found}, indent=1))
        print(entry.get("found") or entry.get("error") or entry["left_out"], flush=True)
    return path
