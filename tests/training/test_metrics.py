"""The one number that a search maximizes is that of the weights that evaluations report."""

from pathlib import Path

import pytest

from dkl.training.metrics import objective, write_metrics

FIRST = {"epoch": 1, "test_accuracy": 0.9, "average_test_accuracy": 0.9}


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"test_accuracy": 0.1}, 0.1),
        ({"test_accuracy": 0.1, "average_test_accuracy": 0.2}, 0.2),
        ({"test_accuracy": 0.1, "test_miou": 0.3}, 0.3),
        ({"test_accuracy": 0.1, "test_miou": 0.3, "average_test_miou": 0.4, "average_test_accuracy": 0.2}, 0.4),
        ({"test_accuracy": 0.1, "average_test_accuracy": 0.2, "best_robust_accuracy": 0.5}, 0.5),
        ({"loss": 1.0}, None),
    ],
)
def test_the_objective_is_of_the_last_epoch(last: dict[str, float], expected: float | None, tmp_path: Path) -> None:
    write_metrics([FIRST, {"epoch": 2, **last}], tmp_path)
    assert objective(tmp_path) == expected
