"""What the page's script shows of every record: plain values, written once, that ``page.js`` lays out.

Configuration and curves are those of a run; records of one run share them.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dkl.errors import UserError
from dkl.files import digest
from dkl.records import SHOTS, Curves, Record, load_curves
from dkl.reporting.boards.base import interval_cell
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.figures.curves import ACCURACIES
from dkl.reporting.names import attacks_label, display_architecture, teacher
from dkl.reporting.statistics.estimates import wilson

_SHOWN = ("clean", "robust", "per_attack", "top5", "shots", "best", "best_epoch", "training", "warnings")
"""Fields that have a place of their own; all others are provenance."""

Accuracy = dict[str, Any]
"""``name``, ``percent``; where they are known ``interval`` (two numbers, percent), ``text`` of it, and ``seconds``."""


def content(records: Sequence[Record], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The records, and the curves beside them in ``folder``, as JSON values; and one message for each broken file."""
    runs: dict[str, Any] = {}
    shown: list[dict[str, Any]] = []
    problems: list[str] = []
    for record in records:
        curves: Curves = []
        try:
            curves = load_curves(folder / f"{record.id}.json")
        except UserError as error:
            problems.append(str(error))
        run = {"training": record.training, "curves": _columns(curves)}
        key = digest(run)
        runs[key] = run
        shown.append({**_record(record), "run": key})
    metrics = {
        key: {"name": name, "colour": colour, "dashed": line == "--"}
        for key, (name, colour, line) in ACCURACIES.items()
    }
    return {"records": shown, "runs": runs, "metrics": metrics}, problems


def to_json(value: Any) -> str:
    """JSON that stands inside a script element, whatever its text says."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _record(record: Record) -> dict[str, Any]:
    attacked = "" if record.accuracy_only else f"{attacks_label(record)} at {record.norm} {record.eps_text}, "
    seed = "trained elsewhere" if record.seed is None else f"seed {record.seed}"
    facts = {
        "Data set": record.dataset,
        "Architecture": display_architecture(record.architecture),
        "Teacher": teacher(record),
        "Seed": "unknown, trained elsewhere" if record.seed is None else str(record.seed),
        "Weights": record.weights,
        "Attacks": None if record.accuracy_only else attacks_label(record),
        "Radius": None if record.accuracy_only else f"{record.norm}, {record.eps_text}",
        "Test images": f"{record.n}{', a part of those of the run' if record.partial else ''}",
        "Synthetic images": record.synthetic,
        "Additional data": "yes" if record.additional_data else None,
    }
    return {
        "id": record.id,
        "method": record.method,
        "budget": f"Budget {record.budget}: {BUDGET_NOTES[record.budget]}.",
        "result": record.budget != "smoke",
        "row": f"{record.budget} {record.row}",
        "label": f"{seed}: {attacked}weights {record.weights}, n = {record.n}",
        "facts": {name: value for name, value in facts.items() if value},
        "accuracies": list(_accuracies(record)),
        "warnings": record.warnings,
        "provenance": {key: value for key, value in dataclasses.asdict(record).items() if key not in _SHOWN},
    }


def _accuracies(record: Record) -> Iterator[Accuracy]:
    """Every accuracy in percent; Wilson's 95 % interval where it is a share of the n images."""
    yield _share("Clean", record.clean, record.n)
    if record.top5 is not None:
        yield _share("Clean, top-5", record.top5, record.n)
    for attack in record.attacks:
        found = record.per_attack[attack]
        yield {**_share(f"Left after {attack}", found.robust, record.n), "seconds": round(found.seconds, 1)}
    if record.robust is not None:
        yield _share("Robust: left after all", record.robust, record.n)
    for name in SHOTS:
        if name in (record.shots or {}):
            yield {"name": f"Mean of classes with {name} training images", "percent": 100 * (record.shots or {})[name]}
    if record.best is not None:
        yield {"name": f"Best epoch ({record.best_epoch}), chosen on the test set", "percent": 100 * record.best}


def _share(name: str, fraction: float, n: int) -> Accuracy:
    interval = wilson(fraction, n)
    bounds = [round(100 * bound, 2) for bound in interval]
    return {"name": name, "percent": 100 * fraction, "interval": bounds, "text": interval_cell(interval)}


def _columns(curves: Curves) -> dict[str, list[float | None]]:
    """The curves by metric, five significant digits; None where an epoch did not measure it, or it is not finite."""
    names = dict.fromkeys(key for row in curves for key in row)
    return {name: [_rounded(row.get(name)) for row in curves] for name in names}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not abs(value) < float("inf") else float(f"{value:.5g}")
