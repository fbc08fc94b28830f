"""Leaderboards and accuracy boards: which records share a row and a board, order, ranks, columns and notes."""

import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from dkl.errors import UserError
from dkl.records import AttackResult, Bound, Record
from dkl.records.metrics import METRICS, Metric, wilson
from dkl.reporting import Leaderboard, leaderboards, model_info
from dkl.reporting.grouping import attacks_label, model_title
from dkl.threat import SUITES
from tests.reporting.factories import cells, make_accuracy, make_record, make_run, make_seeds, plain, trained

FEWER = ["apgd-ce", "apgd-t"]
Make = Callable[..., Record]


def board(records: list[Record], include_smoke: bool = False) -> Leaderboard:
    """Return the only board of ``records``, all with attacks or all without."""
    (only,) = leaderboards(records, include_smoke)
    return only


both = pytest.mark.parametrize(
    ("make", "field", "header"), [(make_record, "robust", "Robust (%)"), (make_accuracy, "clean", "Top-1 (%)")]
)
either = pytest.mark.parametrize("make", [make_record, make_accuracy])


@both
def test_seeds_give_mean_sample_std_and_students_interval(make: Make, field: str, header: str) -> None:
    values = [0.301, 0.312, 0.327]
    made = board([make(seed=seed, top5=0.9, **{field: value}) for seed, value in enumerate(values)])
    mean, std = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
    assert cells(made, header) == [f"{mean:.2f} ± {std:.2f}"]
    assert cells(made, "Seeds") == ["3 (0, 1, 2)"]
    half = 4.302652730 * std / 3**0.5  # Student's quantile with 2 degrees of freedom, from a printed table
    assert cells(made, "95 % interval") == [f"[{mean - half:.1f}, {mean + half:.1f}]"]


@either
def test_rows_of_one_name_are_told_apart_by_what_differs(make: Make) -> None:
    def row(name: str, **training: Any) -> Record:
        return make(id=name, checkpoint_sha256=name * 64, training={"recipe_name": "quick", **training})

    optimizers = [row("a", optimizer={"name": "sgd", "lr": 0.1}), row("b", optimizer={"name": "adamw", "lr": 0.1})]
    name = row("c").method
    assert sorted(cells(board(optimizers), "Method")) == [name, f"{name}, optimizer.name=adamw"]


def test_students_of_different_teachers_are_rows_of_their_own() -> None:
    """They share the row's identity, and the newest record of a seed would hide the other."""

    def student(name: str, teacher: str, seed: int, fingerprint: str | None = None) -> Record:
        training = {"recipe_name": "kd", "task": {"teacher": {"name": "cifar_resnet56", "run": teacher}}}
        hashes = {"checkpoint_sha256": name * 64, "teacher": fingerprint}
        return make_accuracy(id=name, seed=seed, training=training, **hashes)

    students = [student("a", "long", 0), student("b", "long", 1), student("c", "short", 0)]
    made, method = board(students), students[0].method
    assert cells(made, "Method") == [f"{method}, task.teacher.run=long", f"{method}, task.teacher.run=short"]
    assert [len(row.records) for row in made.rows] == [2, 1]

    moved = [student("a", "here", 0, "1" * 64), student("b", "there", 1, "1" * 64), student("c", "here", 0, "2" * 64)]
    assert [len(row.records) for row in board(moved).rows] == [2, 1]  # known by their weights, not by their place


def test_the_interval_of_bounded_autoattack_reaches_below_its_lower_bound() -> None:
    """Wilson's interval of one seed of 500 images, and Student's of two that are 0.01 and 0.03 above their bounds."""
    suite = list(SUITES["bounded"])
    bounds = [Bound(low=low, high=0.32, tolerance=3.0) for low in (0.31, 0.3)]
    records = [
        make_record(seed=seed, robust=robust, n=500, attacks=suite, bound=bound)
        for seed, (robust, bound) in enumerate(zip((0.32, 0.33), bounds, strict=True))
    ]
    one, both = board(records[:1]).rows[0].interval, board(records).rows[0].interval
    (robust,) = cells(board(records[:1]), f"{METRICS['robust'].title} (%)")
    assert robust == "[31.00, 32.00]"  # not the upper end alone
    low, high = wilson(0.32, 500)
    assert one == pytest.approx((low - 0.01, high))
    half = 12.70620474 * statistics.stdev((0.32, 0.33)) / 2**0.5  # Student's quantile with 1 degree of freedom
    assert both == pytest.approx((0.325 - half - 0.02, 0.325 + half))


def test_seeds_of_equal_accuracy_have_an_interval_with_a_width() -> None:
    made = board(make_seeds([0.32, 0.32], n=500))
    assert made.rows[0].interval == wilson(0.32, 500)
    assert any("Seeds of equal accuracy" in note for note in made.notes)
    assert not any("Seeds of equal accuracy" in note for note in board(make_seeds([0.3, 0.32])).notes)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (make_record, {"attacks": FEWER}),
        *(
            (make, other)
            for make in (make_record, make_accuracy)
            for other in ({"row": "b"}, {"data_sha256": "e" * 64})
        ),
        (make_accuracy, {"weights": "best epoch 3"}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_other_evaluations_are_other_rows(make: Make, other: dict[str, Any]) -> None:
    made = board([make(**{"seed": 0, "row": "a"}), make(**{"seed": 1, "row": "a", **other})])
    assert sorted(row.seeds for row in made.rows) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("make", "other"),
    [
        *((make, other) for make in (make_record, make_accuracy) for other in ({"dataset": "x"}, {"budget": "mini"})),
        *((make_record, other) for other in ({"norm": "L2"}, {"norm": "L1"}, {"eps": 0.1, "eps_text": "0.1"})),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_threat_models_datasets_and_budgets_get_their_own_boards(make: Make, other: dict[str, Any]) -> None:
    records = [make(row="a"), make(seed=1, row="a", **other)]
    boards = leaderboards(records)
    assert [len(made.rows) for made in boards] == [1, 1]
    assert len({made.name for made in boards}) == len({made.title for made in boards}) == 2


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


@either
def test_a_part_alone_has_no_rank_but_equal_smaller_test_sets_have(make: Make) -> None:
    made = board([make(n=64, partial=True, budget="paper")])
    assert (made.part, cells(made, "Rank")) == (True, ["–"])
    made = board([make(method=name, clean=x, budget="mini", n=1000) for name, x in (("a", 0.7), ("b", 0.6))])
    assert (made.part, cells(made, "Rank")) == (False, ["1", "2"])


def test_rows_are_ordered_by_robust_then_clean_accuracy() -> None:
    order = [("A", 0.4, 0.7), ("B", 0.3, 0.9), ("C", 0.3, 0.8), ("D", 0.2, 0.95)]
    records = [make_record(method=method, robust=robust, clean=clean) for method, robust, clean in order]
    random.shuffle(records)
    made = board(records)
    assert cells(made, "Method") == [method for method, _, _ in order]
    assert cells(made, "Rank") == ["1", "2", "3", "4"]
    made = board([make_accuracy(method=name, clean=clean) for name, clean in (("B", 0.5), ("A", 0.6), ("C", 0.1))])
    assert (cells(made, "Method"), cells(made, "Rank")) == (["A", "B", "C"], ["1", "2", "3"])
    # 0.1 + 0.2 is not 0.3 in floating point, but such means must still tie, and are ordered by clean accuracy.
    low = make_seeds([0.1, 0.2, 0.3], method="low", clean=0.7)
    high = make_seeds([0.3, 0.1, 0.2], method="high", clean=0.8)
    assert cells(board(low + high), "Method") == ["high", "low"]


def test_fewer_attacks_than_autoattack_come_last_and_unranked() -> None:
    made = board([make_record(method="weak", robust=0.6, attacks=FEWER), make_record(method="strong", robust=0.2)])
    assert cells(made, "Method") == ["strong", "weak"]
    assert cells(made, "Rank") == ["1", "–"]
    assert cells(made, "Attack") == ["AutoAttack", "apgd-ce + apgd-t (not AutoAttack)"]
    assert any("unranked" in note for note in made.notes)


OTHERS = {name: list(attacks) for name, attacks in SUITES.items() if name not in ("standard", "none")}
CHANGES = [*({"attacks": attacks} for attacks in OTHERS.values()), {"partial": True, "n": 100}]


@pytest.mark.parametrize("changes", CHANGES, ids=[*OTHERS, "part of the images"])
def test_only_the_standard_suite_on_the_whole_test_set_bears_autoattacks_name(changes: dict[str, Any]) -> None:
    attacks = changes.get("attacks", list(SUITES["standard"]))
    results = dict.fromkeys(attacks, AttackResult(robust=0.3, seconds=1.0))
    bound = Bound(low=0.29, high=0.3, tolerance=1.0) if attacks == OTHERS["bounded"] else None
    record = make_record(**{"attacks": attacks, "per_attack": results, "robust": 0.3, "bound": bound, **changes})
    standard = make_record()
    assert (attacks_label(standard), cells(board([standard]), "Rank")) == ("AutoAttack", ["1"])
    assert cells(board([record]), "Rank") == ["–"]
    if "attacks" in changes:
        assert attacks_label(record) in ("bounded AutoAttack", " + ".join(attacks) + " (not AutoAttack)")
    with pytest.raises(UserError):
        model_info(record)


@either
def test_smoke_is_left_out_with_a_count_and_shown_unranked_on_request(make: Make) -> None:
    smoke = [make(budget="smoke", seed=seed) for seed in (0, 1)]
    made = board([make(), *smoke])
    assert made.budget == "own"
    assert any(note.startswith("2 records are left out") and "smoke" in note for note in made.notes)
    own, shown = leaderboards([*smoke, make()], include_smoke=True)
    assert (own.budget, shown.budget) == ("own", "smoke")
    assert "smoke: no result" in shown.title
    assert [row.rank for row in (*own.rows, *shown.rows)] == [1, None]
    assert not any("left out" in note for note in (*own.notes, *shown.notes))


def test_the_newest_evaluation_of_the_same_weights_counts() -> None:
    """Times are compared as times: the text of the older one, in another time zone, sorts later."""
    old = make_record(id="old", created="2025-01-01T09:30:00+09:00", robust=0.5)
    new = make_record(id="new", created="2025-01-01T01:00:00+00:00", robust=0.3)
    other = make_record(seed=1, robust=0.3)
    for records in ([old, new, other], [new, other, old]):
        made = board(records)
        assert made.rows[0].seeds == (0, 1)
        assert made.rows[0].means["robust"].mean == pytest.approx(0.3)
        assert any("2 evaluations; " in note and new.created in note for note in made.notes)
    retrained = make_record(id="new", checkpoint_sha256="f" * 64, created=new.created)
    assert any("2 evaluations of different weights" in note for note in board([old, retrained]).notes)


def test_foreign_weights_are_rows_by_checkpoint() -> None:
    first, second = (make_record(seed=None, checkpoint_sha256=letter * 64, id=letter) for letter in "ab")
    again = make_record(seed=None, checkpoint_sha256="a" * 64, id="c", created="2030-01-01T00:00:00Z")
    assert [row.seeds for row in board([first, second, again]).rows] == [(None,), (None,)]


def test_the_same_weights_under_two_labels_share_a_rank() -> None:
    names = {"a": "e", "b": "e", "c": "f"}
    records = [
        make_record(method=name, id=name, row=name, robust=0.3 if sha == "e" else 0.2, checkpoint_sha256=sha * 64)
        for name, sha in names.items()
    ]
    assert cells(board(records), "Rank") == ["1", "1", "3"]


def test_a_radius_in_two_spellings_is_one_board() -> None:
    made = board([make_record(), make_record(seed=1, eps=0.03137254902, eps_text="0.03137254902")])
    assert made.title == "cifar100, Linf, eps = 8/255 (budget own)"


def test_additional_data_and_synthetic_images_are_marked_and_explained() -> None:
    made = board([make_record(method="more", additional_data=True), make_record(method="plain", robust=0.1)])
    assert cells(made, "Method") == ["more†", "plain"]
    assert any(note.startswith("†") for note in made.notes)
    made = board([make_record(synthetic="cifar10/1m.npz, 70 % of every batch")])
    assert cells(made, "Method") == ["IKL-AT‡"]
    assert any("‡" in note and "cifar10/1m.npz" in note for note in made.notes)
    assert not {"†", "‡"} & set("".join(board([make_record()]).notes))


def test_notes_list_the_provenance() -> None:
    other = {"hardware": {"device": "cuda"}, "versions": {"torch": "2.10.0"}, "git_commit": "0123456789abcdef-dirty"}
    records = [
        make_record(hardware={"device": "cpu"}, versions={"torch": "2.9.0"}, warnings=["odd gradient"]),
        make_record(seed=1, batch_size=64, evaluation_seed=5, **other),
    ]
    notes = "\n".join(board(records).notes)
    for expected in ("device cpu, cuda", "torch 2.10.0, 2.9.0", "seed: 0, 5", "batch size: 64, 200", "odd gradient"):
        assert expected in notes
    assert "commit 0123456789-dirty" in notes


def test_last_and_averaged_weights_of_a_run_are_two_rows() -> None:
    last = make_record(id="last", seed=0, robust=0.2, weights="last epoch 20")
    average = make_record(id="average", seed=0, robust=0.3, weights="average at epoch 20")
    other = make_record(id="other", seed=1, robust=0.4, weights="average at epoch 20")
    made = board([last, average, other])
    assert [(row.weights, row.seeds) for row in made.rows] == [("average", (0, 1)), ("last", (0,))]
    assert made.rows[0].means["robust"].mean == pytest.approx(0.35)
    assert any("average at epoch 20, last epoch 20" in note for note in made.notes)


def test_devices_and_precision_do_not_split_a_row() -> None:
    """As on the paper's tables: they change weights only by rounding and the order of random numbers."""
    content = trained("table-02", "ikl-basic", "mini")
    other = content | {"trainer": content["trainer"] | {"devices": 4, "precision": "amp"}}
    records = [make_run("table-02", "ikl-basic"), make_run("table-02", "ikl-basic", seed=1, training=other)]
    assert [row.seeds for row in board(records).rows] == [(0, 1)]


def test_optional_columns_need_a_row_that_has_them() -> None:
    made = board([make_accuracy(training={}, best=None, best_epoch=None)])
    assert not {"Teacher", "Training", "Best epoch (%)*", "Many (%)", "Medium (%)", "Few (%)"} & set(
        made.table().header
    )
    assert not any(note.startswith(("*", "Many")) for note in made.notes)
    made = board([make_accuracy(), make_accuracy(method="CE", clean=0.5, training={"task": {"teacher": None}})])
    assert cells(made, "Teacher") == ["ResNet-56", "–"]
    settings = {"trainer": {"epochs": 8}, "data": {"train_size": 25000}, "selection": {"holdout": 1000}}
    own = [make_accuracy(budget="own", training=settings), make_accuracy(id="x", budget="own", method="x", training={})]
    assert sorted(cells(board(own), "Training")) == ["8 epochs of 24,000 images", "–"]
    assert "Training" not in board([make_accuracy(budget="mini", training=settings)]).table().header
    best, few = [0.703, 0.715], [0.1, 0.3]
    records = [
        make_accuracy(seed=seed, shots={"many": 0.8, "few": few[seed]}, best=best[seed], best_epoch=200 + seed)
        for seed in (0, 1)
    ]
    made = board([*records, make_accuracy(method="other", clean=0.5, best=None, best_epoch=None)])
    assert "Medium (%)" not in made.table().header
    assert cells(made, "Few (%)") == [f"20.00 ± {100 * statistics.stdev(few):.2f}", "–"]
    assert cells(made, "Many (%)") == ["80.00", "–"]
    assert cells(made, "Best epoch (%)*") == [f"70.90 ± {100 * statistics.stdev(best):.2f}", "–"]
    assert any("fewer than 20" in note for note in made.notes)
    assert any(note.startswith("*") and "chosen on the test set" in note for note in made.notes)


def test_a_metric_is_added_by_one_entry_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = Metric(title="Errors", words="errors", value=lambda record: 1 - record.clean, of=lambda r: r.accuracy_only)
    monkeypatch.setitem(METRICS, "errors", errors)
    made = board([make_accuracy(clean=0.75)])
    assert (cells(made, "Errors (%)"), plain(made)[0]["errors_mean"]) == (["25.00"], "25.00")
    assert "Errors (%)" not in board([make_record()]).table().header


def test_machines_read_plain_numbers() -> None:
    robust = [0.25, 0.35]
    several, single = plain(board([*make_seeds(robust), make_record(method="single", robust=0.2, seed=7)]))
    assert float(several["robust_mean"]) == pytest.approx(100 * statistics.fmean(robust), abs=0.005)
    assert float(several["robust_std"]) == pytest.approx(100 * statistics.stdev(robust), abs=0.005)
    assert (several["seeds"], several["seed_list"], several["robust_low"]) == ("2", "0 1", "0.00")
    assert (single["robust_std"], single["seed_list"]) == ("", "7")
    assert float(single["robust_low"]) < 20 < float(single["robust_high"])


def test_machines_read_plain_accuracies() -> None:
    records = [make_accuracy(seed=i, clean=clean, shots={"many": 0.75}, top5=0.9) for i, clean in enumerate((0.5, 0.6))]
    other = make_accuracy(method="z", clean=0.4, seed=None, top5=None, best=None, best_epoch=None, training={})
    several, single = plain(board([*records, other]))
    assert float(several["top1_mean"]) == pytest.approx(55)
    assert float(several["top1_std"]) == pytest.approx(100 * statistics.stdev([0.5, 0.6]), abs=0.005)
    assert (several["top5_mean"], several["many_mean"], several["few_mean"]) == ("90.00", "75.00", "")
    assert (several["best_epoch_mean"], several["best_epochs"], several["top1_low"]) == ("71.00", "230 230", "0.00")
    assert (several["teacher"], several["seed_list"], several["weights"]) == ("ResNet-56", "0 1", "last")
    assert (single["top5_mean"], single["best_epoch_mean"], single["best_epochs"], single["seed_list"]) == ("",) * 4
    assert float(single["top1_low"]) < 40 < float(single["top1_high"])


def test_titles_come_from_the_model_choices() -> None:
    titles = {name: model_title(name) for name in ("cifar_resnet32x4", "wrn28_10_swish", "resnet34.a1_in1k")}
    assert titles == {
        "cifar_resnet32x4": "ResNet-32x4",
        "wrn28_10_swish": "WideResNet-28-10 (SiLU)",
        "resnet34.a1_in1k": "resnet34.a1_in1k",
    }
