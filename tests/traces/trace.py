"""Runs the cases and writes the results as text: losses as hexadecimal floats, weights as digests, flags as 0 and 1.

This is the only file here that imports dkl: if a module moves, edit the imports below.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dkl.assembly import train
from dkl.config import compose_config
from dkl.evaluation import evaluate
from dkl.manifests import load as load_manifest
from dkl.records import Record, load_flags
from dkl.reporting.boards.entries import published_rows
from dkl.reporting.boards.leaderboards import leaderboards
from dkl.reporting.boards.paper import paper_boards
from dkl.storage import checkpoint
from tests.reporting.factories import make_record, make_run
from tests.traces import cases

Trace = dict[str, Any]

TABLE = "table-02"


def environment() -> dict[str, str]:
    """Describe what a trace's bits depend on besides the code."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    vendor = next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "unknown")
    return {
        "torch": torch.__version__.partition("+")[0],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "vendor": vendor,  # linear algebra libraries choose their kernels by it
    }


def _digest(value: Any) -> str:
    """Hash the values in a nested structure, float tensors as float64. Keys are ignored, so they can be renamed."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        content = (plain.double() if plain.is_floating_point() else plain).numpy().tobytes()
    elif isinstance(value, Mapping):
        content = "".join(sorted(map(_digest, value.values()))).encode()
    elif isinstance(value, list | tuple):
        content = "".join(map(_digest, value)).encode()
    else:
        content = repr(value).encode()
    return hashlib.sha256(content).hexdigest()


def _named_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Hash names and values: published checkpoints fix the names."""
    return _digest([[name, state[name]] for name in sorted(state)])


class Runs:
    """Trains every case at most once, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._finished: dict[str, Path] = {}

    def run(self, name: str) -> Path:
        """Train the case ``name`` if needed; returns the run's folder."""
        if name not in self._finished:
            given = [*cases.BASE, *(self._filled(text) for text in cases.TRAINING[name])]
            overrides = [f"paths.results={self.folder}", *given]
            self._finished[name] = train(compose_config("train", overrides))
        return self._finished[name]

    def _filled(self, override: str) -> str:
        if "{teacher}" in override:
            return override.replace("{teacher}", str(self.run(cases.TEACHER)))
        if "{synthetic}" in override:
            return override.replace("{synthetic}", str(_write_synthetic(self.folder / "synthetic.npz")))
        return override

    def training(self, name: str) -> Trace:
        """Return the metrics of every epoch and digests of the final weights, the task's state and the average."""
        folder = self.run(name)
        content = checkpoint.read(folder / "checkpoint.pt")
        epochs = [
            {
                key: float(value).hex()
                for key, value in sorted(row.items())
                if key not in ("epoch_seconds", "images_per_second")
            }
            for row in content["rows"]
        ]
        trace: Trace = {"epochs": epochs, "weights": _named_digest(content["model"])}
        trace["task"] = sorted(map(_digest, content["task"].values()))
        if "average" in content:
            trace["average"] = _named_digest(content["average"])
        if (folder / "best.pt").is_file():
            trace["best"] = _named_digest(checkpoint.read(folder / "best.pt")["model"])
        return trace

    def flags(self, name: str) -> Trace:
        """Return, per attack, which images are still classified correctly (1) and which are not (0)."""
        given = (f"run={self.run(cases.EVALUATED)}", f"paths.results={self.folder}", "device=cpu", "threads=1")
        overrides = [*given, "n=100", "batch_size=10", *cases.EVALUATIONS[name]]
        found = load_flags(evaluate(compose_config("evaluate", overrides)))
        return {attack: "".join(map(str, flags.astype(int))) for attack, flags in found.items()}


def _write_synthetic(path: Path) -> Path:
    """Write 60 images with the shape of digits to an ``.npz`` file of synthetic data."""
    if not path.exists():
        random = np.random.default_rng(0)
        images = random.integers(256, size=(60, 8, 8, 1), dtype=np.uint8)
        np.savez(path, image=images, label=np.arange(60) % 10)
    return path


def _seeds(make: Callable[..., Record], values: Sequence[float], **fields: Any) -> list[Record]:
    return [make(seed=seed, robust=value, **fields) for seed, value in enumerate(values)]


def _records() -> list[Record]:
    """Make records of attacks and of accuracy: several seeds, foreign weights, synthetic data, every budget."""

    def row(name: str, **fields: Any) -> Callable[..., Record]:
        return lambda **more: make_run(TABLE, name, **{**fields, **more})

    own, linf, natural = {"method": "KL-AT"}, ["pgd-20", "cw-20"], {"attacks": [], "method": "KD"}
    return [
        *_seeds(make_record, [0.25, 0.26, 0.27]),
        *_seeds(make_record, [0.24, 0.25], clean=0.7, **own),
        *_seeds(make_record, [0.3], attacks=linf, method="PGD-AT"),
        *_seeds(make_record, [0.22, 0.21, 0.2], norm="L2", eps=0.5, eps_text="0.5", n=500, dataset="cifar10"),
        make_record(seed=None, method="foreign", id="foreign", additional_data=True, weights="as in the file"),
        make_record(method="DM", budget="mini", synthetic="cifar10/1m.npz, 70 % of every batch", weights="average"),
        make_record(budget="smoke", method="smoke", n=16),
        make_record(budget="paper", method="IKL-AT", n=10_000, clean=0.65, robust=0.315),
        make_record(seed=0, clean=0.7, top5=0.9, best=0.72, best_epoch=7, teacher="ab" * 32, **natural),
        make_record(seed=1, clean=0.71, top5=0.91, best=0.73, best_epoch=9, teacher="ab" * 32, **natural),
        make_record(seed=2, clean=0.69, top5=0.92, best=0.74, best_epoch=8, teacher="ab" * 32, **natural),
        make_run(
            "table-13", "resnet56-resnet20-ikl", attacks=[], clean=0.68, top5=0.9, dataset="cifar100", budget="own"
        ),
        make_record(attacks=[], method="plain", clean=0.65, top5=0.8),
        make_record(
            attacks=[],
            method="long tail",
            dataset="imagenet_lt",
            clean=0.4,
            shots={"many": 0.6, "few": 0.1},
        ),
        *_seeds(row("ikl-basic", budget="mini", method="IKL"), [0.3, 0.31, 0.33], clean=0.6, n=400),
        *_seeds(row("awp-basic", budget="mini", method="AWP"), [0.28, 0.29, 0.3], clean=0.58, n=400),
        *_seeds(row("ikl-basic", budget="paper", method="IKL"), [0.318, 0.32, 0.321], clean=0.66),
        *_seeds(row("lbgat-basic", budget="paper", method="LBGAT"), [0.29], clean=0.61),
        *_seeds(row("ikl-autoaug", budget="smoke", method="IKL"), [0.3], clean=0.6, n=16),
    ]


def _made_flags(record: Record) -> dict[str, Any]:
    """Make per-image flags whose means are the record's accuracies; other methods fail on other images."""
    order = np.random.default_rng(len(record.method)).permutation(record.n)
    accuracies = {"clean": record.clean, **{name: result.robust for name, result in record.per_attack.items()}}
    return {name: order < round(value * record.n) for name, value in accuracies.items()}


def tables() -> Trace:
    """Return header and cells of every board made from the records, for people and for machines."""
    manifests, records = [load_manifest(TABLE)], _records()
    boards = [
        *leaderboards(records, True, published_rows(manifests)),
        *paper_boards(manifests, records, _made_flags, True),
    ]
    return {
        board.name: {
            kind: [list(line) for line in (found.header, *found.rows)]
            for kind, found in (("people", board.table()), ("machines", board.data()))
        }
        for board in boards
    }
