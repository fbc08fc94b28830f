"""``dkl runs compare``: in what runs differ, in configuration and result, and their curves on one figure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

from dkl.reporting.boards.cells import NONE
from dkl.reporting.formats.text_table import TextTable
from dkl.reporting.runs.differences import changed_keys, own_differences, setting_name, value_text
from dkl.reporting.runs.read import RunSummary
from dkl.storage.files import digest

RESULTS: dict[str, Callable[[RunSummary], str]] = {
    "state": lambda run: run.state,
    "epochs": lambda run: run.epochs,
    "training loss": lambda run: _number(run.last("loss"), ".4f"),
    "test (%)": lambda run: run.test,
    "clean (%), evaluated": lambda run: f"{100 * run.records[-1].clean:.2f}" if run.records else "",
    "robust (%)": lambda run: run.robust,
    "images per second": lambda run: _number(run.last("images_per_second"), ".0f"),
}
"""Results by name. A line that no run has is left out."""

LONGEST_NAME = 3
"""Up to this many runs, their hashes name the figure; more are hashed again."""

LABEL_WIDTH = 56
"""Characters of a legend entry that fit below the figure."""


def comparison(runs: Sequence[RunSummary]) -> TextTable:
    """Return a table with one column per run: the settings that differ, then the results."""
    settings = [
        (setting_name(key), *(value_text(run.settings[key]) if key in run.settings else NONE for run in runs))
        for key in changed_keys(runs)
    ]
    results = [(name, *(value(run) or NONE for run in runs)) for name, value in RESULTS.items()]
    return TextTable(
        title="Comparison",
        header=("", *(run.hash for run in runs)),
        rows=(*settings, *(row for row in results if set(row[1:]) != {NONE})),
        alignments="l" * (len(runs) + 1),
    )


def draw_curves(runs: Sequence[RunSummary], folder: Path) -> list[Path]:
    """Draw accuracies and loss of all ``runs`` by epoch into ``folder``, as PNG and SVG; return the files.

    Raises ModuleNotFoundError without matplotlib.
    """
    from dkl.reporting.figures.plots.compare_runs import compared_curves
    from dkl.reporting.figures.plots.style import save

    hashes = [run.hash for run in runs]
    labels = [
        fill(f"{run.name} {differs}", LABEL_WIDTH) for run, differs in zip(runs, own_differences(runs), strict=True)
    ]
    curves = {label: run.metrics for label, run in zip(labels, runs, strict=True)}
    name = "-".join(hashes) if len(runs) <= LONGEST_NAME else digest(sorted(hashes))
    return save(lambda: compared_curves(curves), folder / f"compare-{name}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
