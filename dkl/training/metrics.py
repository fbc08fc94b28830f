"""Metrics of training: two files in the run's folder, and the one number that a search maximizes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dkl.storage.files import write_rows, write_text

MetricsRow = dict[str, Any]

METRICS = "metrics.jsonl"

OBJECTIVES = ("best_robust_accuracy", "average_test_miou", "test_miou", "average_test_accuracy", "test_accuracy")
"""Metrics that a search may maximize; the first that a run has counts."""


def write_metrics(rows: Sequence[MetricsRow], folder: Path) -> None:
    """Write one line per epoch to ``metrics.jsonl`` and ``metrics.csv``, atomically."""
    write_rows(folder / "metrics.csv", rows)
    write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def objective(folder: Path) -> float | None:
    """Return what a search maximizes: robust accuracy on held-out images after the best epoch, or a test metric.

    Without ``selection`` it is the mean IoU, or without masks the test accuracy, at the end, of the averaged weights if
    there are some; so hyperparameters are chosen on the test set. None if the run's files are on another machine.
    """
    path = folder / METRICS
    if not path.exists():  # of several machines, only the one with process 0 writes files
        return None
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return next((last[metric] for metric in OBJECTIVES if metric in last), None)
