"""What stands under a board: what its numbers are, where they come from, and what was left out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dkl.records import Record
from dkl.reporting.grouping import age, group, one_seed
from dkl.threat import AUTOATTACK

BUDGET_NOTES = {
    "own": "settings of one's own, not a row of the paper",
    "paper": "the recipe as published",
    "mini": "the paper's recipe cut to what a CPU can do; not comparable with published figures",
    "smoke": "no result; it only shows that the code runs",
}

PUBLISHED = (
    "Rows with a source other than ours are published figures, not run here: of the paper's table and of RobustBench's "
    "entry, in one row where they agree; ‡ there is for training with generated images."
)


def distinct(values: Iterable[Any]) -> str:
    """Each value once, sorted, with commas; numbers by size."""
    unique = {str(value): value for value in values}
    numeric = all(isinstance(value, int | float) for value in unique.values())
    return ", ".join(sorted(unique, key=unique.__getitem__ if numeric else None))


def _merged(parts: Sequence[Mapping[str, Any]]) -> str:
    """Every key with its distinct values, such as ``device cpu, cuda; cores 2``."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return "; ".join(f"{key} {distinct(part[key] for part in parts if key in part)}" for key in keys)


def _numbers(shown: Sequence[Record], which: str) -> list[str]:
    """What the numbers are, and of which budget; the interval is that of the accuracy ``which``."""
    budget = shown[0].budget
    return [
        "Accuracies in percent of n test images; ± is the sample standard deviation over training seeds; "
        f"the 95 % interval is the {which} accuracy's, Student's over seeds or, of one seed, Wilson's over n images.",
        f"Budget {budget}: {BUDGET_NOTES[budget]}.",
    ]


def of_attacks(shown: Sequence[Record]) -> list[str]:
    """Notes on the records a leaderboard shows."""
    lines = _numbers(shown, "robust")
    if any(record.is_autoattack for record in shown):
        lines.append(f"AutoAttack is the standard suite: {', '.join(AUTOATTACK)}.")
    if not all(record.is_autoattack for record in shown):
        lines.append(
            "Rows under fewer attacks than AutoAttack come last, unranked: their robust accuracy is optimistic."
        )
    return [*lines, *sources(shown)]


def of_accuracy(shown: Sequence[Record]) -> list[str]:
    """Notes on the records a board of accuracies shows."""
    lines = _numbers(shown, "top-1")
    if any(record.best is not None for record in shown):
        lines.append(
            "* Highest top-1 accuracy after any epoch, chosen on the test set as the field does, and so optimistic; "
            "all other figures are of the weights named."
        )
    if any(record.shots for record in shown):
        lines.append(
            "Many, medium, few: mean accuracy of the classes with more than 100, 20 to 100 and fewer than 20 training "
            "images."
        )
    return [*lines, *sources(shown)]


def sources(shown: Sequence[Record]) -> list[str]:
    """What was trained on, which weights these are, and what evaluated them."""
    lines = []
    if any(record.additional_data for record in shown):
        lines.append("† Trained with additional data.")
    if synthetic := distinct(record.synthetic for record in shown if record.synthetic):
        lines.append(f"‡ Trained with synthetic images as well: {synthetic}.")
    lines.append(f"Weights: {distinct(record.weights for record in shown)}.")
    if any(len({record.data_sha256 for record in same}) > 1 for same in group(shown, lambda r: r.n).values()):
        lines.append("The test images differ between rows of equal n: their fingerprints disagree.")
    seeds, sizes = distinct(r.evaluation_seed for r in shown), distinct(r.batch_size for r in shown)
    lines.append(f"Evaluation seed: {seeds}; batch size: {sizes}.")
    if hardware := _merged([record.hardware for record in shown]):
        lines.append(f"Hardware: {hardware}.")
    commits = [{"commit": _short(record.git_commit)} if record.git_commit else {} for record in shown]
    if versions := "; ".join(filter(None, (_merged([record.versions for record in shown]), _merged(commits)))):
        lines.append(f"Versions: {versions}.")
    warnings = (f"Warning, {_weights(record)}: {text}" for record in shown for text in record.warnings)
    return [*lines, *dict.fromkeys(warnings)]


def left_out(records: Iterable[Record], smoke: int) -> list[str]:
    """Notes on older evaluations of the same row and seed among ``records``, and on ``smoke`` records elsewhere."""
    lines = []
    for again in group(records, one_seed).values():
        if len(again) > 1:
            newest = max(again, key=age)
            differ = " of different weights" if len({record.checkpoint_sha256 for record in again}) > 1 else ""
            lines.append(
                f"{_weights(newest)}: {len(again)} evaluations{differ}; the newest, of {newest.created}, counts."
            )
    if smoke:
        count = "1 record is" if smoke == 1 else f"{smoke} records are"
        lines.append(f"{count} left out: budget smoke is {BUDGET_NOTES['smoke']}.")
    return lines


def _short(commit: str) -> str:
    """Ten digits of a commit's hash, and ``-dirty`` where it ends so."""
    digits, dash, state = commit.partition("-")
    return digits[:10] + dash + state


def _weights(record: Record) -> str:
    which = f"checkpoint {record.checkpoint_sha256[:8]}" if record.seed is None else f"seed {record.seed}"
    return f"{record.method} ({record.architecture}, {which})"
