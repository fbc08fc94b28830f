"""Attack after attack on the points still standing, batch by batch, saved after every batch.

The order is AutoAttack's: an attack sees only images that every attack before it left correctly classified, cut into
batches anew at its start, each batch attacked from a freshly seeded generator. A killed evaluation goes on at the next
batch and ends with the flags of one never killed, which are those of the package called directly.
"""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dkl.attacks import attack_mode
from dkl.console import Bar, bar
from dkl.evaluation.suites import Perturb, passes
from dkl.files import write_atomically

Bools = NDArray[np.bool_]


@dataclass
class Standing:
    """Where an evaluation is: ``clean`` flags, flags after each finished attack, and the attack under way."""

    clean: Bools | None = None
    after: dict[str, Bools] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    current: Bools | None = None
    batches_done: int = 0

    def save(self, path: Path) -> None:
        """Write atomically, flags as they are."""
        arrays: dict[str, Any] = {f"after/{name}": flags for name, flags in self.after.items()}
        arrays |= {f"seconds/{name}": np.float64(seconds) for name, seconds in self.seconds.items()}
        for name in ("clean", "current"):
            if (flags := getattr(self, name)) is not None:
                arrays[name] = flags
        content = io.BytesIO()
        np.savez(content, batches_done=np.int64(self.batches_done), **arrays)
        write_atomically(path, lambda file: file.write(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> "Standing":
        """What ``save`` wrote, or a fresh start where nothing lies at ``path``."""
        if not path.exists():
            return cls()
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        return cls(
            clean=arrays.get("clean"),
            after={n.removeprefix("after/"): a for n, a in arrays.items() if n.startswith("after/")},
            seconds={n.removeprefix("seconds/"): float(a) for n, a in arrays.items() if n.startswith("seconds/")},
            current=arrays.get("current"),
            batches_done=int(arrays["batches_done"]),
        )


def _clean(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int, device: torch.device) -> Bools:
    parts = [
        (model(x.to(device)).argmax(1) == y.to(device)).cpu()
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
    ]
    return torch.cat(parts).numpy()


@contextmanager
def _counted(model: nn.Module, progress: Bar) -> Iterator[None]:
    """Every forward pass of ``model`` inside is a step of ``progress``."""
    handle = model.register_forward_hook(lambda module, inputs, output: progress.advance())
    try:
        yield
    finally:
        handle.remove()


def _run_attack(
    name: str,
    perturb: Perturb,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    standing: Standing,
    path: Path,
    batch_size: int,
    device: torch.device,
    passes: int,
) -> None:
    """One attack on the points standing at its start, from the first batch not done; keeps ``standing`` on disk."""
    start = next(reversed(standing.after.values())) if standing.after else standing.clean
    assert start is not None
    batches = torch.from_numpy(start).nonzero().squeeze(1).split(batch_size) if start.any() else ()
    current = start.copy() if standing.current is None else standing.current
    with bar(name, passes * len(batches), passes * standing.batches_done) as progress, _counted(model, progress):
        for chosen in batches[standing.batches_done :]:
            started = time.perf_counter()
            x, y = images[chosen].to(device), labels[chosen].to(device)
            predicted = model(perturb(x, y)).argmax(1)
            current[chosen.numpy()] = (predicted == y).cpu().numpy()
            standing.current = current
            standing.batches_done += 1
            standing.seconds[name] = standing.seconds.get(name, 0.0) + time.perf_counter() - started
            standing.save(path)
            progress.reach(passes * standing.batches_done, f"{current.mean():.2%} standing")
    standing.after[name] = current
    standing.seconds.setdefault(name, 0.0)
    standing.current, standing.batches_done = None, 0
    standing.save(path)


@torch.no_grad()
def run_attacks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, Perturb],
    *,
    batch_size: int,
    device: torch.device,
    path: Path,
    num_classes: int = 10,
) -> Standing:
    """Flags of ``images[N, C, H, W]`` in [0, 1] with ``labels[N]`` after each of ``attacks``, resumed from ``path``."""
    standing = Standing.load(path)
    with attack_mode(model):
        if standing.clean is None:
            standing.clean = _clean(model, images, labels, batch_size, device)
            standing.save(path)
        for name, perturb in attacks.items():
            if name not in standing.after:
                count = passes(name, num_classes)
                _run_attack(name, perturb, model, images, labels, standing, path, batch_size, device, count)
    return standing
