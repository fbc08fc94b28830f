"""The board of claims: verdicts by hand-made flags, hours by hand, and only claims in words that were tested."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dkl.manifests.manifest import Claim, Manifest, load
from dkl.records import Record
from dkl.reporting.boards.claims import COLUMNS, ClaimRow, claim_boards
from dkl.reporting.boards.paper import make_board, paper_boards
from dkl.reporting.statistics import Comparison
from tests.reporting.factories import flags_of, make_run, no_flags, plain

TABLE, ROW, OTHER = "table-02", "ikl-basic", "awp-basic"
TEXT = "IKL-AT is more robust than AWP"


def verdicts(correct: tuple[int, int], claim: dict[str, Any], seeds: int = 2, **fields: Any) -> list[dict[str, str]]:
    """The board's rows for a robust accuracy of ``correct`` of 100 images, the smaller set within the larger."""
    runs = [
        make_run(TABLE, row, seed=seed, n=100, robust=count / 100, config_hash=f"{count}{seed}", **fields)
        for row, count in zip((ROW, OTHER), correct, strict=True)
        for seed in range(seeds)
    ]
    without_text = Claim(better=ROW, than=OTHER, column="clean")
    claims = (Claim(better=ROW, than=OTHER, column="autoattack", **claim), without_text)
    manifest = load(TABLE)
    rows = tuple(row for row in manifest.rows if row.name in (ROW, OTHER))
    return board_rows([replace(manifest, rows=rows, claims=claims)], runs)


def board_rows(manifests: list[Manifest], runs: list[Record]) -> list[dict[str, str]]:
    """The board's rows if of each run the first images are right, as many as its robust accuracy says."""
    right = {run.id: np.arange(100) < round(100 * (run.robust or 0)) for run in runs}
    tables = paper_boards(manifests, runs, flags_of(right), include_smoke=True)
    return [row for board in claim_boards(tables) for row in plain(board)]


@pytest.mark.parametrize(
    ("correct", "claim", "verdict"),
    [
        # d of 100 images that differ in both seeds have the mean d/100 and the error sqrt(d (100 - d) / 99) / 100: the
        # mean is 2.5 errors for d = 6 and 1.75 for d = 3, of which 1.98 are needed.
        ((26, 20), {}, "agrees"),
        ((23, 20), {}, "not visible at this size"),
        ((20, 26), {}, "disagrees"),
        # The interval of d = 3 is [-0.4, 6.4], that of d = 6 is [1.2, 10.8].
        ((23, 20), {"within": 7}, "agrees"),
        ((23, 20), {"within": 2}, "not visible at this size"),
        ((26, 20), {"within": 11}, "agrees"),
        ((26, 20), {"within": 2}, "not visible at this size"),
        ((26, 20), {"within": 1}, "disagrees"),
    ],
)
def test_the_verdict_follows_from_the_interval(correct: tuple[int, int], claim: dict[str, Any], verdict: str) -> None:
    (row,) = verdicts(correct, {"text": TEXT, "source": "Table 2", **claim})
    assert (row["claim"], row["source"], row["verdict"]) == (TEXT, "Table 2", verdict)
    assert float(row["difference"]) == pytest.approx(correct[0] - correct[1])
    assert row["seeds"] == "0 1"
    assert row["about"] == "Adversarial training"


@pytest.mark.parametrize(("low", "high", "verdict"), [(-0.03, -0.01, "agrees"), (0.01, 0.03, "disagrees")])
def test_fewer_seconds_are_better(low: float, high: float, verdict: str) -> None:
    outcome = Comparison(difference=(low + high) / 2, low=low, high=high, p=0.01, seeds=(0, 1), n=100, test="t")
    (table,) = paper_boards([load("table-04")], [make_run("table-04", "resnet34-resnet18-kd", attacks=[])], no_flags)
    row = ClaimRow(Claim(better="a", than="b", column="step_seconds"), outcome, table)
    assert row.verdict == verdict
    here = next(column for column in COLUMNS if column.header == "Here")
    assert here.cell(row) == f"{(low + high) / 2:+.2f} [{low:+.2f}, {high:+.2f}] s"


def test_one_seed_gives_no_verdict() -> None:
    """Six images that differ, all in favor of one row, have p = 2/64 by McNemar's test."""
    (row,) = verdicts((26, 20), {"text": TEXT}, seeds=1)
    assert row["verdict"] == "one seed only"
    assert float(row["p"]) == pytest.approx(2 / 64, rel=0.01)


def test_hours_are_those_of_training_and_evaluation() -> None:
    (row,) = verdicts((26, 20), {"text": TEXT}, training_seconds=7200.0, seconds=1800.0)
    assert float(row["hours"]) == 4 * (7200 + 1800) / 3600
    (row,) = verdicts((26, 20), {"text": TEXT}, seconds=1800.0)
    assert row["hours"] == ""


def test_experiments_are_in_the_order_of_the_tables_their_claims_come_from() -> None:
    tables = {"table-02": "", "table-03": "Table 13", "table-01": "Table 2"}
    rows = {name: load(name).rows[:2] for name in tables}
    manifests = [
        replace(
            load(name),
            rows=rows[name],
            claims=(
                Claim(better=rows[name][0].name, than=rows[name][1].name, column="clean", text=name, source=source),
            ),
        )
        for name, source in tables.items()
    ]
    runs = [
        make_run(name, row.name, n=100, clean=share, robust=share, config_hash=f"{name}{share}")
        for name in tables
        for row, share in zip(rows[name], (0.5, 0.4), strict=True)
    ]
    assert [row["experiment"] for row in board_rows(manifests, runs)] == ["table-01", "table-03", "table-02"]


def test_the_summary_counts_what_the_correction_leaves() -> None:
    claims = [Claim(better=ROW, than=OTHER, column="autoattack", text=TEXT, source="Table 2") for _ in range(3)]
    board = make_board(replace(load(TABLE), claims=(*claims, replace(claims[0], within=2))), "own", [], {}, [])
    outcome = Comparison(difference=0.01, low=0.001, high=0.02, p=0.03, seeds=(0, 1), n=100, test="t")
    outcomes = [outcome, replace(outcome, p=0.001), replace(outcome, low=-0.001, p=0.2), outcome]
    (built,) = claim_boards([replace(board, comparisons=dict(enumerate(outcomes)))])
    assert built.notes[0] == (
        "Of 4 claims of the paper tested at small size: 3 agree, 1 not visible at this size. "
        "Holm's correction leaves 1 of the 2 visible differences significant."
    )


def test_claims_without_a_text_and_runs_that_are_not_small_have_no_board() -> None:
    assert verdicts((26, 20), {}) == []
    assert verdicts((26, 20), {"text": TEXT}, budget="smoke") == []
    assert verdicts((26, 20), {"text": TEXT}, budget="paper") == []


def test_one_claim_tested_at_two_sizes_has_two_rows_with_their_budgets() -> None:
    manifest = replace(load(TABLE), claims=(Claim(better=ROW, than=OTHER, column="autoattack", text=TEXT),))
    outcome = Comparison(difference=0.02, low=0.01, high=0.03, p=0.01, seeds=(0, 1), n=100, test="t")
    tables = [make_board(manifest, budget, [], {0: outcome}, []) for budget in ("own", "mini", "paper")]
    (found,) = claim_boards(tables)
    assert [row["budget"] for row in plain(found)] == ["own", "mini"]
    assert [(row["about"], row["p"], row["p_holm"]) for row in plain(found)] == [("Others", "0.01", "0.02")] * 2
    assert "Budget" in found.table().header
