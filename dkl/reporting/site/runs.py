"""The runs on the results page: a table of all evaluations, and the values that ``page.js`` shows of each."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dkl.errors import UserError
from dkl.records import SHOTS, Curves, Record, load_curves
from dkl.reporting.boards.cells import NONE, interval_cell, method_cell
from dkl.reporting.boards.notes import BUDGET_NOTES
from dkl.reporting.figures.curves import ACCURACIES
from dkl.reporting.figures.style import CYCLE
from dkl.reporting.formats.text_table import TextTable
from dkl.reporting.grouping import weights_kind
from dkl.reporting.names import attacks_label, teacher_title
from dkl.reporting.reference import REFERENCE, is_reference, record_file
from dkl.reporting.statistics.seeds import accuracy_interval, percent
from dkl.storage.files import digest

_SHOWN = (
    "clean",
    "robust",
    "per_attack",
    "top5",
    "shots",
    "corruptions",
    "best",
    "best_epoch",
    "training",
    "warnings",
    "checksums",
)
"""Record fields that are shown elsewhere. All others are listed as provenance."""

_OF_ATTACKS = ("Robust (%)", "Radius", "Attacks")
"""Columns of the runs table that only attacked records fill."""

_NUMBERS = ("Robust (%)", "Clean (%)", "Seed", "n")
"""Columns of the runs table that are aligned to the right."""

DASHES = {"-": "none", "--": "5 3", "-.": "9 3 2 3", ":": "1 4"}
"""The dashes in SVG of each line style of ``ACCURACIES``."""

Accuracy = dict[str, Any]
"""``name`` and ``percent``; if known, ``interval`` (two numbers, percent), its ``text``, and ``seconds``."""


def runs_table(records: Sequence[Record]) -> TextTable:
    """Return a table with one row per evaluation."""
    columns: dict[str, Callable[[Record], str]] = {
        "Method": lambda r: method_cell(r.method, additional_data=r.additional_data, synthetic=bool(r.synthetic)),
        "Robust (%)": lambda r: _percent(r, r.robust),
        "Clean (%)": lambda r: _percent(r, r.clean),
        "Seed": lambda r: NONE if r.seed is None else str(r.seed),
        "Radius": lambda r: NONE if r.accuracy_only else f"{r.norm} {r.eps_text}",
        "Attacks": lambda r: NONE if r.accuracy_only else attacks_label(r),
        "Dataset": lambda r: r.dataset,
        "Architecture": lambda r: r.architecture,
        "Budget": lambda r: r.budget,
        "n": lambda r: str(r.n),
        "Weights": weights_kind,
        "Evaluated": lambda r: r.created[:10],
    }
    if any(map(is_reference, records)):
        columns["Source"] = lambda r: REFERENCE if is_reference(r) else "ours"
    if all(record.accuracy_only for record in records):
        columns = {name: cell for name, cell in columns.items() if name not in _OF_ATTACKS}
    return TextTable(
        title="Runs",
        header=tuple(columns),
        rows=tuple(tuple(cell(record) for cell in columns.values()) for record in records),
        alignments="".join("r" if name in _NUMBERS else "l" for name in columns),
        records=tuple((record.id,) for record in records),
        essential=frozenset(("Method", "Robust (%)", "Clean (%)")),
    )


def _percent(record: Record, fraction: float | None) -> str:
    """Return an accuracy in percent. Budget smoke has none: it is no result."""
    return NONE if fraction is None or record.budget == "smoke" else percent(fraction)


def runs_data(records: Sequence[Record], results: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the records of ``results`` and their curves as JSON values; and one message per broken file.

    Records of one run share its configuration and curves.
    """
    runs: dict[str, Any] = {}
    shown: list[dict[str, Any]] = []
    problems: list[str] = []
    for record in records:
        curves: Curves = []
        try:
            curves = load_curves(record_file(results, record))
        except UserError as error:
            problems.append(str(error))
        run = {"training": _without_copies(record.training), "curves": _columns(curves)}
        # Configurations are the largest part of the page: store each once.
        key = digest(run)
        runs[key] = run
        shown.append({**_record(record), "run": key})
    metrics = {
        key: {"name": name, "color": color, "dash": DASHES[line]} for key, (name, color, line) in ACCURACIES.items()
    }
    # Black is left out: it does not show on a dark page.
    return {"records": shown, "runs": runs, "metrics": metrics, "colors": CYCLE[:-1]}, problems


def _without_copies(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training configuration without the loss and the attack that its task repeats."""
    task = training.get("task")
    if not isinstance(task, Mapping):
        return dict(training)
    own = {key: value for key, value in task.items() if key not in ("loss", "attack") or value != training.get(key)}
    return {**training, "task": own}


def _record(record: Record) -> dict[str, Any]:
    attacked = "" if record.accuracy_only else f"{attacks_label(record)} at {record.norm} {record.eps_text}, "
    seed = "trained elsewhere" if record.seed is None else f"seed {record.seed}"
    facts = {
        "Dataset": record.dataset,
        "Architecture": record.architecture,
        "Teacher": teacher_title(record),
        "Seed": "unknown, trained elsewhere" if record.seed is None else str(record.seed),
        "Weights": record.weights,
        "Attacks": None if record.accuracy_only else attacks_label(record),
        "Radius": None if record.accuracy_only else f"{record.norm}, {record.eps_text}",
        "Test images": f"{record.n}{', a part of the test set' if record.partial else ''}",
        "Synthetic images": record.synthetic,
        "Additional data": "yes" if record.additional_data else None,
        "Source": "reference: it ships with the project" if is_reference(record) else None,
    }
    return {
        "id": record.id,
        "method": record.method,
        "short": record.method + ("" if record.seed is None else f", seed {record.seed}"),
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
    """Yield every accuracy, with Wilson's 95 % interval if it is a fraction of the n images."""
    if record.segmented is not None:
        yield {"name": "Mean IoU", "percent": 100 * record.segmented.miou}
        yield {"name": "Pixel accuracy", "percent": 100 * record.clean}
        for name, iou in record.segmented.iou.items():
            if iou is not None:
                yield {"name": f"IoU of {name}", "percent": 100 * iou}
    else:
        yield _image_fraction("Clean", record.clean, record.n)
    if record.top5 is not None:
        yield _image_fraction("Clean, top-5", record.top5, record.n)
    for attack in record.attacks:
        result = record.per_attack[attack]
        accuracy = _image_fraction(f"Robust after {attack}", result.robust, record.n)
        yield {**accuracy, "seconds": round(result.seconds, 1)}
    if record.robust is not None:
        bound = f" (AutoAttack {record.bound.text})" if record.bound else ""
        yield _image_fraction(f"Robust after all attacks{bound}", record.robust, record.n, record.slack)
    for name in SHOTS:
        if name in (record.shots or {}):
            yield {"name": f"Mean of classes with {name} training images", "percent": 100 * (record.shots or {})[name]}
    if record.corrupted is not None:
        yield {"name": "Common corruptions, mean", "percent": 100 * record.corrupted}
    for name, severities in (record.corruptions or {}).items():
        yield {"name": f"Corruption {name}, mean of severities", "percent": 100 * sum(severities) / len(severities)}
    if record.best is not None:
        yield {"name": f"Best epoch ({record.best_epoch}), chosen on the test set", "percent": 100 * record.best}


def _image_fraction(name: str, fraction: float, n: int, slack: float = 0.0) -> Accuracy:
    interval = accuracy_interval([fraction], n, [slack])
    bounds = [round(100 * bound, 2) for bound in interval]
    return {"name": name, "percent": 100 * fraction, "interval": bounds, "text": interval_cell(interval)}


def _columns(curves: Curves) -> dict[str, list[float | None]]:
    """Return the curves by metric. A value that an epoch did not measure, or that is not finite, is None."""
    names = dict.fromkeys(key for row in curves for key in row)
    return {name: [_rounded(row.get(name)) for row in curves] for name in names}


def _rounded(value: float | None) -> float | None:
    """Round to five significant digits, which keeps the page small."""
    return None if value is None or not abs(value) < float("inf") else float(f"{value:.5g}")
