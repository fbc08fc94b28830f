"""Leaderboards: which records share a row and a board, the order of rows, and the notes."""

import random
import statistics

import pytest

from dkl.records import Bound, Record
from dkl.records.metrics import wilson
from dkl.reporting import Leaderboard, leaderboards
from dkl.threat import SUITES
from tests.reporting.factories import make_record, make_run, make_seeds, trained

FEWER = ["apgd-ce", "apgd-t"]


def board(records: list[Record], include_smoke: bool = False) -> Leaderboard:
    """Return the only board of ``records``."""
    (found,) = leaderboards(records, include_smoke)
    return found


def cells(found: Leaderboard, column: str) -> list[str]:
    """Return one column of the table for people."""
    table = found.table()
    return [row[table.header.index(column)] for row in table.rows]


def test_seeds_give_mean_and_sample_std() -> None:
    robust = [0.301, 0.312, 0.327]
    found = board(make_seeds(robust))
    mean, std = 100 * statistics.fmean(robust), 100 * statistics.stdev(robust)
    assert cells(found, "Robust (%)") == [f"{mean:.2f} ± {std:.2f}"]
    assert cells(found, "Seeds") == ["3 (0, 1, 2)"]
    half = 4.302652730 * std / 3**0.5  # Student's quantile with 2 degrees of freedom, from a printed table
    assert cells(found, "95 % interval") == [f"[{mean - half:.1f}, {mean + half:.1f}]"]


def test_one_seed_shows_an_interval_around_it() -> None:
    found = board([make_record(robust=0.32, n=500)])
    low, high = map(float, cells(found, "95 % interval")[0].strip("[]").split(", "))
    assert low < 32 < high
    assert "±" not in cells(found, "Robust (%)")[0]


def test_the_interval_of_bounded_autoattack_reaches_below_its_lower_bound() -> None:
    """Wilson's interval of one seed of 500 images, and Student's of two that are 0.01 and 0.03 above their bounds."""
    suite = list(SUITES["bounded"])
    bounds = [Bound(low=low, high=0.32, tolerance=3.0) for low in (0.31, 0.3)]
    records = [
        make_record(seed=seed, robust=robust, n=500, attacks=suite, bound=bound)
        for seed, (robust, bound) in enumerate(zip((0.32, 0.33), bounds, strict=True))
    ]
    one, both = board(records[:1]).rows[0].interval, board(records).rows[0].interval
    low, high = wilson(0.32, 500)
    assert one == pytest.approx((low - 0.01, high))
    half = 12.70620474 * statistics.stdev((0.32, 0.33)) / 2**0.5  # Student's quantile with 1 degree of freedom
    assert both == pytest.approx((0.325 - half - 0.02, 0.325 + half))


@pytest.mark.parametrize("other", [{"attacks": FEWER}, {"row": "another"}, {"data_sha256": "e" * 64}], ids=str)
def test_other_evaluations_are_other_rows(other: dict[str, object]) -> None:
    found = board([make_record(seed=0), make_record(seed=1, **other)])
    assert [row.seeds for row in found.rows] in ([(0,), (1,)], [(1,), (0,)])


def test_seeds_of_equal_accuracy_have_an_interval_with_a_width() -> None:
    found = board(make_seeds([0.32, 0.32], n=500))
    assert found.rows[0].interval == wilson(0.32, 500)
    assert any("Seeds of equal accuracy" in note for note in found.notes)
    assert not any("Seeds of equal accuracy" in note for note in board(make_seeds([0.3, 0.32])).notes)


@pytest.mark.parametrize(
    "other", [{"dataset": "cifar10"}, {"norm": "L2"}, {"eps": 0.1, "eps_text": "0.1"}, {"budget": "mini"}], ids=str
)
def test_threat_models_and_budgets_get_their_own_boards(other: dict[str, object]) -> None:
    boards = leaderboards([make_record(row="a"), make_record(seed=1, row="a", **other)])
    assert [len(found.rows) for found in boards] == [1, 1]
    assert len({found.name for found in boards}) == len({found.title for found in boards}) == 2


@pytest.mark.parametrize("part", [{"n": 64, "partial": True}, {"n": 500}, {"partial": True}], ids=str)
def test_a_part_of_the_test_set_never_ranks_with_the_whole(part: dict[str, object]) -> None:
    whole = make_record(method="whole", robust=0.2, budget="paper")
    few = make_record(method="few", robust=0.6, budget="paper", **part)
    published = {("cifar100", "Linf", round(8 / 255, 9)): [board([make_record(method="theirs")]).rows[0]]}
    first, second = leaderboards([few, whole], published=published)
    assert cells(first, "Method") == ["theirs", "whole"]
    assert cells(first, "Rank") == ["1", "2"]
    assert any("have a board of their own" in note for note in first.notes)
    assert (cells(second, "Method"), cells(second, "Rank")) == (["few"], ["–"])
    assert second.title == f"{first.title}, part of the test set"
    assert second.name == f"{first.name}-part"
    assert any("neither ranked nor compared" in note for note in second.notes)


def test_a_part_alone_has_no_rank_either() -> None:
    found = board([make_record(n=64, partial=True, budget="paper")])
    assert (found.part, cells(found, "Rank")) == (True, ["–"])


def test_equal_smaller_test_sets_rank_among_themselves() -> None:
    found = board([make_record(method=name, robust=x, budget="mini", n=1000) for name, x in (("a", 0.3), ("b", 0.2))])
    assert (found.part, cells(found, "Rank")) == (False, ["1", "2"])


def test_rows_are_ordered_by_robust_then_clean_accuracy() -> None:
    order = [("A", 0.4, 0.7), ("B", 0.3, 0.9), ("C", 0.3, 0.8), ("D", 0.2, 0.95)]
    records = [make_record(method=method, robust=robust, clean=clean) for method, robust, clean in order]
    random.shuffle(records)
    found = board(records)
    assert cells(found, "Method") == [method for method, _, _ in order]
    assert cells(found, "Rank") == ["1", "2", "3", "4"]


def test_equal_means_of_seeds_are_ordered_by_clean() -> None:
    """0.1 + 0.2 is not 0.3 in floating point, but such means must still tie."""
    low = make_seeds([0.1, 0.2, 0.3], method="low", clean=0.7)
    high = make_seeds([0.3, 0.1, 0.2], method="high", clean=0.8)
    assert cells(board(low + high), "Method") == ["high", "low"]


def test_fewer_attacks_than_autoattack_come_last_and_unranked() -> None:
    found = board([make_record(method="weak", robust=0.6, attacks=FEWER), make_record(method="strong", robust=0.2)])
    assert cells(found, "Method") == ["strong", "weak"]
    assert cells(found, "Rank") == ["1", "–"]
    assert cells(found, "Attack") == ["AutoAttack", "apgd-ce + apgd-t (not AutoAttack)"]
    assert any("unranked" in note for note in found.notes)


def test_smoke_is_left_out_with_a_count() -> None:
    found = board([make_record(), *make_seeds([0.1, 0.2], budget="smoke")])
    assert found.budget == "own"
    assert any(note.startswith("2 records") and "smoke" in note for note in found.notes)


def test_smoke_on_request_has_its_own_board_without_ranks() -> None:
    own, smoke = leaderboards([make_record(budget="smoke", robust=0.6), make_record()], include_smoke=True)
    assert (own.budget, smoke.budget) == ("own", "smoke")
    assert "smoke: no result" in smoke.title
    assert [row.rank for row in smoke.rows] == [None]
    assert not any("left out" in note for note in (*own.notes, *smoke.notes))


def test_the_newest_evaluation_of_the_same_weights_counts() -> None:
    """Times are compared as times: the text of the older one, in another time zone, sorts later."""
    old = make_record(id="old", created="2025-01-01T09:30:00+09:00", robust=0.5)
    new = make_record(id="new", created="2025-01-01T01:00:00+00:00", robust=0.3)
    other = make_record(seed=1, robust=0.3)
    for records in ([old, new, other], [new, other, old]):
        found = board(records)
        assert found.rows[0].seeds == (0, 1)
        assert found.rows[0].means["robust"].mean == pytest.approx(0.3)
        assert any("2 evaluations; " in note and new.created in note for note in found.notes)
    retrained = make_record(id="new", checkpoint_sha256="f" * 64, created=new.created)
    assert any("2 evaluations of different weights" in note for note in board([old, retrained]).notes)


def test_foreign_weights_are_rows_by_checkpoint() -> None:
    first, second = (make_record(seed=None, checkpoint_sha256=letter * 64, id=letter) for letter in "ab")
    again = make_record(seed=None, checkpoint_sha256="a" * 64, id="c", created="2030-01-01T00:00:00Z")
    assert [row.seeds for row in board([first, second, again]).rows] == [(None,), (None,)]


def test_a_radius_in_two_spellings_is_one_board() -> None:
    found = board([make_record(), make_record(seed=1, eps=0.03137254902, eps_text="0.03137254902")])
    assert found.title == "cifar100, Linf, eps = 8/255 (budget own)"


def test_additional_data_is_marked_and_explained() -> None:
    found = board([make_record(method="more", additional_data=True), make_record(method="plain", robust=0.1)])
    assert cells(found, "Method") == ["more†", "plain"]
    assert any(note.startswith("†") for note in found.notes)
    assert not any(note.startswith("†") for note in board([make_record()]).notes)


def test_notes_list_the_provenance() -> None:
    records = [
        make_record(hardware={"device": "cpu"}, versions={"torch": "2.9.0"}, warnings=["odd gradient"]),
        make_record(
            seed=1,
            hardware={"device": "cuda"},
            versions={"torch": "2.10.0"},
            batch_size=64,
            evaluation_seed=5,
            git_commit="0123456789abcdef-dirty",
        ),
    ]
    notes = "\n".join(board(records).notes)
    for expected in (
        "device cpu, cuda",
        "torch 2.10.0, 2.9.0",
        "seed: 0, 5",
        "batch size: 64, 200",
        "odd gradient",
        "commit 0123456789-dirty",
    ):
        assert expected in notes


def test_machines_read_plain_numbers() -> None:
    robust = [0.25, 0.35]
    data = board([*make_seeds(robust), make_record(method="single", robust=0.2, seed=7)]).data()
    several, single = (dict(zip(data.header, row, strict=True)) for row in data.rows)
    assert float(several["robust_mean"]) == pytest.approx(100 * statistics.fmean(robust), abs=0.005)
    assert float(several["robust_std"]) == pytest.approx(100 * statistics.stdev(robust), abs=0.005)
    assert (several["seeds"], several["seed_list"], several["robust_low"]) == ("2", "0 1", "0.00")
    assert (single["robust_std"], single["seed_list"]) == ("", "7")
    assert float(single["robust_low"]) < 20 < float(single["robust_high"])


def test_last_and_averaged_weights_of_a_run_are_two_rows() -> None:
    last = make_record(id="last", seed=0, robust=0.2, weights="last epoch 20")
    average = make_record(id="average", seed=0, robust=0.3, weights="average at epoch 20")
    other = make_record(id="other", seed=1, robust=0.4, weights="average at epoch 20")
    (board,) = leaderboards([last, average, other])
    assert [(row.weights, row.seeds) for row in board.rows] == [("average", (0, 1)), ("last", (0,))]
    assert board.rows[0].means["robust"].mean == pytest.approx(0.35)
    assert any("average at epoch 20, last epoch 20" in note for note in board.notes)


def test_synthetic_images_are_marked_and_named() -> None:
    record = make_record(synthetic="cifar10/1m.npz, 70 % of every batch")
    (board,) = leaderboards([record])
    assert board.table().rows[0][1].endswith("‡")
    assert any("‡" in note and "cifar10/1m.npz" in note for note in board.notes)
    (plain,) = leaderboards([make_record()])
    assert "‡" not in "".join((*plain.notes, *plain.table().rows[0]))


def test_devices_and_precision_do_not_split_a_row() -> None:
    """As on the paper's tables: they change weights only by rounding and the order of random numbers."""
    content = trained("table-02", "ikl-basic", "mini")
    other = content | {"trainer": content["trainer"] | {"devices": 4, "precision": "amp"}}
    records = [make_run("table-02", "ikl-basic"), make_run("table-02", "ikl-basic", seed=1, training=other)]
    assert [row.seeds for row in board(records).rows] == [(0, 1)]
