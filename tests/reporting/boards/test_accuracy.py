"""Accuracy boards: which records share a row and a board, and the columns."""

import csv
import io
import statistics
from pathlib import Path
from typing import Any

import pytest

from dkl.records import Record, save
from dkl.reporting import AccuracyBoard, accuracy_boards, leaderboards, write_tables
from dkl.reporting.formats import to_csv, to_html, to_latex, to_markdown
from dkl.reporting.grouping import model_title
from tests.factories import make_flags
from tests.reporting import factories

TEACHER = {"task": {"teacher": {"name": "cifar_resnet56", "checkpoint": "resnet56.pth"}}}


def make_record(**overrides: Any) -> Record:
    """Return a record of a distilled ResNet-20 on CIFAR-100."""
    defaults: dict[str, Any] = {
        "method": "IKL-KD",
        "architecture": "ResNet-20",
        "attacks": [],
        "clean": 0.7,
        "top5": 0.92,
        "best": 0.71,
        "best_epoch": 230,
        "weights": "last epoch 240",
        "training": TEACHER,
    }
    return factories.make_record(**{**defaults, **overrides})


def make_seeds(clean: list[float], **overrides: Any) -> list[Record]:
    return [make_record(seed=seed, clean=value, **overrides) for seed, value in enumerate(clean)]


def board(records: list[Record], include_smoke: bool = False) -> AccuracyBoard:
    (found,) = accuracy_boards(records, include_smoke)
    return found


def cells(found: AccuracyBoard, column: str) -> list[str]:
    table = found.table()
    return [row[table.header.index(column)] for row in table.rows]


def test_a_part_of_the_test_set_has_its_own_board_without_ranks() -> None:
    few = make_record(method="few", clean=0.75, n=100, partial=True)
    whole, part = accuracy_boards([few, make_record(method="whole")])
    assert (cells(whole, "Method"), cells(whole, "Rank")) == (["whole"], ["1"])
    assert (cells(part, "Method"), cells(part, "Rank")) == (["few"], ["–"])
    assert (part.name, part.title) == (f"{whole.name}-part", f"{whole.title}, part of the test set")


def test_seeds_give_means() -> None:
    clean, best = [0.701, 0.712, 0.709], [0.703, 0.715, 0.71]
    records = [make_record(seed=i, clean=clean[i], best=best[i], best_epoch=200 + i) for i in range(3)]
    found = board(records)
    assert cells(found, "Top-1 (%)") == [f"{100 * statistics.fmean(clean):.2f} ± {100 * statistics.stdev(clean):.2f}"]
    assert cells(found, "Best epoch (%)*") == [
        f"{100 * statistics.fmean(best):.2f} ± {100 * statistics.stdev(best):.2f}"
    ]
    mean, half = 100 * statistics.fmean(clean), 430.2652730 * statistics.stdev(clean) / 3**0.5
    assert cells(found, "95 % interval") == [f"[{mean - half:.1f}, {mean + half:.1f}]"]
    assert (cells(found, "Seeds"), cells(found, "Weights")) == (["3 (0, 1, 2)"], ["last"])
    assert (cells(found, "Architecture"), cells(found, "Teacher")) == (["ResNet-20"], ["ResNet-56"])
    assert any(note.startswith("*") and "chosen on the test set" in note for note in found.notes)


def test_one_seed_shows_an_interval_around_its_accuracy() -> None:
    low, high = map(float, cells(board([make_record()]), "95 % interval")[0].strip("[]").split(", "))
    assert low < 70 < high


@pytest.mark.parametrize("other", [{"row": "another"}, {"data_sha256": "e" * 64}, {"weights": "best epoch 3"}], ids=str)
def test_other_evaluations_are_other_rows(other: dict[str, Any]) -> None:
    found = board([make_record(seed=0, row="a"), make_record(**{"seed": 1, "row": "a", **other})])
    assert sorted(row.seeds for row in found.rows) == [(0,), (1,)]


@pytest.mark.parametrize("other", [{"dataset": "imagenet"}, {"budget": "mini"}], ids=str)
def test_datasets_and_budgets_get_their_own_boards(other: dict[str, Any]) -> None:
    boards = accuracy_boards([make_record(row="a"), make_record(seed=1, row="a", **other)])
    assert [len(found.rows) for found in boards] == [1, 1]
    assert len({found.name for found in boards}) == len({found.title for found in boards}) == 2


def test_rows_are_ordered_by_accuracy() -> None:
    found = board([make_record(method=method, clean=clean) for method, clean in (("B", 0.5), ("A", 0.6), ("C", 0.1))])
    assert (cells(found, "Method"), cells(found, "Rank")) == (["A", "B", "C"], ["1", "2", "3"])


def test_attacked_records_and_others_are_never_mixed() -> None:
    attacked, own = factories.make_record(clean=0.9), make_record()
    (robust,), accurate = leaderboards([attacked, own]), board([attacked, own])
    assert [row.method for row in robust.rows] == ["IKL-AT"]
    assert [row.method for row in accurate.rows] == ["IKL-KD"]
    assert leaderboards([own]) == accuracy_boards([attacked]) == []


def test_optional_columns_need_a_row_that_has_them() -> None:
    plain = board([make_record(training={}, best=None, best_epoch=None)])
    assert not {"Teacher", "Best epoch (%)*", "Many (%)", "Medium (%)", "Few (%)"} & set(plain.table().header)
    assert not any(note.startswith(("*", "Many")) for note in plain.notes)
    both = board([make_record(), make_record(method="CE", clean=0.5, training={"task": {"teacher": None}})])
    assert cells(both, "Teacher") == ["ResNet-56", "–"]


def test_shots_are_shown_if_there_are_any() -> None:
    few = [0.1, 0.3]
    records = [make_record(seed=i, shots={"many": 0.8, "few": value}) for i, value in enumerate(few)]
    found = board([*records, make_record(method="other", clean=0.5)])
    assert "Medium (%)" not in found.table().header
    assert cells(found, "Few (%)") == [f"20.00 ± {100 * statistics.stdev(few):.2f}", "–"]
    assert cells(found, "Many (%)") == ["80.00 ± 0.00", "–"]
    assert any("fewer than 20" in note for note in found.notes)


def test_machines_read_plain_numbers() -> None:
    records = make_seeds([0.5, 0.6], shots={"many": 0.75}, top5=0.9)
    other = make_record(method="foreign", clean=0.4, seed=None, top5=None, best=None, best_epoch=None, training={})
    text = to_csv(board([*records, other]).data())
    several, single = csv.DictReader(io.StringIO(text))
    assert float(several["top1_mean"]) == pytest.approx(55)
    assert float(several["top1_std"]) == pytest.approx(100 * statistics.stdev([0.5, 0.6]), abs=0.005)
    assert (several["top5_mean"], several["many_mean"], several["few_mean"]) == ("90.00", "75.00", "")
    assert (several["best_epoch_mean"], several["best_epochs"], several["top1_low"]) == ("71.00", "230 230", "0.00")
    assert (several["teacher"], several["seed_list"], several["weights"]) == ("ResNet-56", "0 1", "last")
    assert (single["top5_mean"], single["best_epoch_mean"], single["best_epochs"], single["seed_list"]) == ("",) * 4
    assert float(single["top1_low"]) < 40 < float(single["top1_high"])


def test_smoke_is_left_out_with_a_count_and_shown_unranked_on_request() -> None:
    smoke = make_record(budget="smoke", clean=0.8)
    found = board([make_record(), smoke, factories.make_record(budget="smoke")])
    assert any(note.startswith("1 record is left out") for note in found.notes)
    own, shown = accuracy_boards([make_record(), smoke], include_smoke=True)
    assert (own.rows[0].rank, shown.rows[0].rank) == (1, None)
    assert "smoke: no result" in shown.title


def test_every_format_holds_the_numbers() -> None:
    found = board([make_record(shots={"many": 0.81, "few": 0.12})])
    table = found.table()
    for text in (to_markdown(table), to_latex(table, found.name), to_html(table)):
        assert all(number in text for number in ("70.00", "92.00", "71.00", "81.00", "12.00", "ResNet-56"))


def test_tables_have_both_kinds_and_robustbench_one(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    for record in (
        make_record(id="a"),
        factories.make_record(id="b"),
        make_record(id="c", dataset="x", budget="smoke"),
    ):
        save(record, make_flags(record), folder)
    report = write_tables(tmp_path)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    stems = ("cifar100-accuracy-own", "cifar100-Linf-eps8_255-own")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("md", "csv", "tex", "html")}
    assert [path.name for path in tmp_path.glob("model_info/**/*.json")] == ["Unpublished_WRN-34-10_IKL-AT_s0_own.json"]
    assert report.skipped == []
    assert [problem.split(": ")[-1] for problem in report.problems] == ["c"]
    assert "cifar100, accuracy (budget own)" in report.markdown


def test_titles_come_from_the_model_choices() -> None:
    titles = {name: model_title(name) for name in ("cifar_resnet32x4", "wrn28_10_swish", "resnet34.a1_in1k")}
    assert titles == {
        "cifar_resnet32x4": "ResNet-32x4",
        "wrn28_10_swish": "WideResNet-28-10 (SiLU)",
        "resnet34.a1_in1k": "resnet34.a1_in1k",
    }
