"""Evaluation records: one JSON file per evaluation, with its provenance, its per-image flags and its curves."""

from dkl.records.record import BUDGETS, SHOTS, AttackResult, Curves, FewLabels, Flags, Record
from dkl.records.storage import load, load_all, load_curves, load_flags, save

__all__ = [
    "BUDGETS",
    "SHOTS",
    "AttackResult",
    "Curves",
    "FewLabels",
    "Flags",
    "Record",
    "load",
    "load_all",
    "load_curves",
    "load_flags",
    "save",
]
