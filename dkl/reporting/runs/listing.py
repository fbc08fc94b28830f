"""The table of ``dkl runs``: one row per run."""

from collections.abc import Sequence

from dkl.reporting.formats.text_table import TextTable
from dkl.reporting.runs.differences import own_differences
from dkl.reporting.runs.read import RunSummary


def listing(runs: Sequence[RunSummary]) -> TextTable:
    """Return a table of ``runs`` with epochs, accuracies in percent, state, and what is special about each."""
    return TextTable(
        title="Runs",
        header=("Run", "Epochs", "Test (%)", "Robust (%)", "State", "Differs in"),
        rows=tuple(
            (run.name, run.epochs, run.test, run.robust, run.state, differs)
            for run, differs in zip(runs, own_differences(runs), strict=True)
        ),
        alignments="lrrlll",
    )
