"""Lists and compares the runs of a results folder, from the files in their folders: no torch, no composition."""

from dkl.reporting.runs.compare import comparison, draw_curves
from dkl.reporting.runs.listing import listing
from dkl.reporting.runs.read import RunSummary, find_run, read_runs

__all__ = ["RunSummary", "comparison", "draw_curves", "find_run", "listing", "read_runs"]
