"""The numbers of training: two files in the run's folder, and the one number that a search goes by."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dkl.files import write_rows, write_text

MetricsRow = dict[str, Any]


def write_metrics(rows: Sequence[MetricsRow], folder: Path) -> None:
    """Write one line an epoch to ``metrics.jsonl`` and ``metrics.csv``, whole and atomically."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_rows(folder / "metrics.csv", rows)


def objective(folder: Path) -> float | None:
    """What a search maximises: robust accuracy on held-out images after the best epoch, else test accuracy at the end.

    The first needs ``selection``; by the second, hyper-parameters are chosen on the test set. None where the process
    that wrote the run's files is on another machine.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return last.get("best_robust_accuracy", last.get("test_accuracy"))
