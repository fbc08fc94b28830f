"""Evaluation records: one JSON file per evaluation, with its provenance, its per-image flags and its curves."""

import dkl.full
from dkl.records.record import BUDGETS, SHOTS, AttackResult, Bound, Curves, FewLabels, Flags, Record, Segmented
from dkl.records.storage import iou_of, load, load_all, load_curves, load_flags, save, why_unusable
