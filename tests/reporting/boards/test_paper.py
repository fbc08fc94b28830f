"""The paper's tables: which row a record belongs to, what the cells hold, and what is never mixed."""

import json
import statistics
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from dkl.manifests import Manifest, identities, names
from dkl.manifests import load as read_manifest
from dkl.manifests.manifest import Claim
from dkl.records import Bound, Record
from dkl.reporting.boards.paper import PaperBoard, paper_boards, published_board
from dkl.reporting.formats import to_html, to_latex, to_markdown
from dkl.threat import SUITES
from tests.reporting.factories import flags_of, make_record, make_run, no_flags, plain, trained

TABLE, ROW, OTHER = "table-02", "ikl-basic", "awp-basic"
load = cache(read_manifest)
T_2 = 4.302652730
"""Student's 97.5 % quantile with 2 degrees of freedom, from a printed table."""


def boards(
    records: list[Record], *manifests: str | Manifest, load_flags: Any = no_flags, smoke: bool = False
) -> list[PaperBoard]:
    found = [load(name) if isinstance(name, str) else name for name in manifests or (TABLE,)]
    return paper_boards(found, records, load_flags, smoke)


def part(manifest: str, *rows: str) -> Manifest:
    """Return the manifest with only the named rows: composing all of a large one takes seconds."""
    found = load(manifest)
    return replace(found, rows=tuple(row for row in found.rows if row.name in rows), claims=())


def board(records: list[Record], manifest: str | Manifest = TABLE, **options: Any) -> PaperBoard:
    """Return the only board of ``records``."""
    (found,) = boards(records, manifest, **options)
    return found


def cells(found: PaperBoard, row: str) -> dict[str, str]:
    """Return a row's cells for people, by header."""
    place = [one.row.name for one in found.rows].index(row)
    table = found.table()
    return dict(zip(table.header, table.rows[place], strict=True))


def numbers_of(found: PaperBoard, row: str) -> dict[str, str]:
    """Return a row's cells for machines, by header."""
    return next(cells for cells in plain(found) if cells["row"] == row)


def seeds(robust: list[float], **overrides: Any) -> list[Record]:
    return [make_run(TABLE, ROW, seed=seed, robust=value, **overrides) for seed, value in enumerate(robust)]


@pytest.mark.parametrize(
    ("manifest", "row", "budget"),
    [
        (TABLE, ROW, "smoke"),
        (TABLE, "ikl-autoaug", "mini"),
        (TABLE, "dm-50m", "paper"),
        ("table-09", "tau-1", "smoke"),
        ("table-13", "resnet56-resnet20-ikl", "smoke"),
        ("official-extra", "cifar100-gkl", "mini"),
        ("cifar10-mini-overfitting", "pgd-awp", "own"),
        ("cifar100-mini-kd", "kd", "own"),
    ],
)
def test_a_record_belongs_to_the_row_that_trains_the_same(manifest: str, row: str, budget: str) -> None:
    """Also after a round trip through JSON, under another method name, on other devices and at any seed."""
    kept = json.loads(json.dumps(make_run(manifest, row, budget=budget, seed=5).training))
    kept["trainer"] |= {"devices": 4, "batch_norm_share": None, "precision": "amp"}
    weaker = {"attacks": ["pgd-20"], "search": {"precision": "bf16"}}
    accuracy: dict[str, Any] = {"attacks": []}
    evaluations = {"table-13": accuracy, "cifar100-mini-kd": accuracy, "cifar10-mini-overfitting": weaker}
    measured = evaluations.get(manifest, {})
    run = make_run(manifest, row, budget=budget, seed=5, training=kept, method="whatever", **measured)
    # A few rows of Table 13 stand for all of them.
    others = ("resnet56-resnet20-kd", "wrn_40_2-wrn_16_2-ikl")
    rows = part(manifest, row, *others) if manifest == "table-13" else manifest
    found = board([run], rows, smoke=True)
    assert found.budget == budget
    assert {one.row.name: [record.id for record in one.records] for one in found.rows if one.records} == {row: [run.id]}
    assert "Trained with trainer.batch_norm_share=4: all rows." in found.notes


def test_a_note_names_the_rows_that_were_computed_in_another_way() -> None:
    several = make_run("table-02", "ikl-basic").training
    one = several | {"trainer": several["trainer"] | {"devices": 1}}
    runs = [
        make_run("table-02", "ikl-basic", training=one),
        make_run("table-02", "ikl-basic", seed=10),
        make_run("table-02", "ikl-basic", seed=2),
        make_run("table-02", "awp-basic"),
    ]
    notes = board(runs, part("table-02", "ikl-basic", "awp-basic")).notes
    assert [note for note in notes if "share" in note] == [
        "Trained with trainer.batch_norm_share=4: IKL-AT (seed 2, 10)."
    ]


def test_a_column_of_a_part_of_the_test_set_has_all_images_at_other_sizes() -> None:
    """``cifar10-mini`` attacks 2,000 images at its own sizes; budget mini has 1,000 in all."""
    suite, bound = list(SUITES["bounded"]), Bound(low=0.29, high=0.3, tolerance=1.0)
    search = {"precision": "bf16"}
    run = make_run("cifar10-mini", "ikl-awp", attacks=suite, bound=bound, robust=0.3, search=search, n=1000)
    found = board([run], "cifar10-mini")
    (measured,) = [row.measurements["autoattack"] for row in found.rows if row.records]
    assert [one.value for one in measured.values()] == [0.3]
    headers = [column.header for column in found.columns if column.header and "Bounded" in column.header]
    assert headers == ["Bounded AutoAttack in bf16, at most (%)"]


def test_bounded_autoattack_widens_the_interval_of_its_column_only_and_has_a_note() -> None:
    suite, bound = list(SUITES["bounded"]), Bound(low=0.28, high=0.295, tolerance=2.0)
    about = {"search": {"precision": "bf16"}, "n": 1000, "clean": 0.5, "robust": 0.3}
    exact, bounded = (
        board([make_run("cifar10-mini", "ikl-awp", attacks=attacks, bound=found, **about)], "cifar10-mini")
        for attacks, found in ((["pgd-20"], None), (suite, bound))
    )
    before, after = numbers_of(exact, "ikl-awp"), numbers_of(bounded, "ikl-awp")
    assert float(after["autoattack_low"]) == pytest.approx(float(before["pgd_low"]) - 2)
    assert after["autoattack_high"] == before["pgd_high"]
    assert (after["clean_low"], after["clean_high"]) == (before["clean_low"], before["clean_high"])
    assert [any("Bounded AutoAttack ran" in note for note in found.notes) for found in (exact, bounded)] == [
        False,
        True,
    ]


def test_a_note_names_seeds_with_different_teachers() -> None:
    taught = [
        make_run("table-13", "resnet56-resnet20-ikl", seed=k, attacks=[], teacher=str(k // 2) * 64) for k in range(3)
    ]
    manifest = part("table-13", "resnet56-resnet20-ikl")
    (note,) = [note for note in board(taught, manifest).notes if "different teachers" in note]
    assert note.startswith("IKL-KD had different teachers: 00000000 (seed 0, 1), 11111111 (seed 2)")
    assert not any("different teachers" in note for note in board(taught[:2], manifest).notes)


@pytest.mark.parametrize("key", ["loss", "optimizer", "data", "attack", "task"])
def test_other_settings_belong_to_no_row(key: str) -> None:
    content = trained(TABLE, ROW, "mini")
    other = make_run(TABLE, ROW, training=content | {key: content[key] | {"changed": 1}})
    assert boards([other]) == []


def test_foreign_weights_and_unknown_settings_belong_to_no_row() -> None:
    assert boards([make_run(TABLE, ROW, seed=None)]) == []
    assert boards([make_record(budget="mini"), make_record(budget="mini", training={"data": {}}, id="b")]) == []
    assert boards([replace(make_run(TABLE, ROW), budget="own")]) == []


def test_one_run_is_in_every_table_that_has_its_row() -> None:
    found = boards([make_run(TABLE, ROW)], "table-02", "table-07", "table-08", "table-11")
    rows = {one.name: [row.row.name for row in one.rows if row.records] for one in found}
    assert rows == {"table-02-mini": ["ikl-basic"], "table-07-mini": ["alpha-5"], "table-08-mini": ["beta-5"]}


def test_rows_ruled_out_by_their_overrides_have_no_records() -> None:
    """With a record of each row at once, every row finds its own."""
    manifest = load("table-09")
    records = [make_run("table-09", row.name) for row in manifest.runnable]
    found = board(records, "table-09")
    assert [[record.id for record in row.records] for row in found.rows] == [[record.id] for record in records]
    assert len(set(identities(manifest, "mini").values())) == len(records)


def test_seeds_give_a_mean_its_spread_and_students_interval() -> None:
    robust = [0.301, 0.312, 0.327]
    found = board(seeds(robust, budget="paper"))
    mean, std = statistics.fmean(robust), statistics.stdev(robust)
    half = T_2 * std / 3**0.5
    shown = cells(found, ROW)
    expected = f"{100 * mean:.2f} ± {100 * std:.2f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"
    assert shown["AutoAttack, ours (%)"] == expected
    assert shown["AutoAttack, paper (%)"] == "31.91"
    assert shown["AutoAttack, difference"] == f"{100 * mean - 31.91:+.2f}"
    assert (shown["n"], shown["Seeds"]) == ("10000", "3 (0, 1, 2)")
    numbers = numbers_of(found, ROW)
    for name, value in (("mean", mean), ("std", std), ("low", mean - half), ("high", mean + half)):
        assert float(numbers[f"autoattack_{name}"]) == pytest.approx(100 * value, abs=0.0051), name
    assert float(numbers["autoattack_difference"]) == pytest.approx(100 * mean - 31.91, abs=0.0051)
    assert (numbers["autoattack_paper"], numbers["autoattack_seeds"], numbers["seed_list"]) == ("31.91", "3", "0 1 2")


def test_a_column_with_fewer_seeds_lists_them() -> None:
    both = [make_run("table-11", "kl", seed=seed) for seed in (0, 1)]
    pgd = make_run("table-11", "kl", attacks=["pgd-10"], robust=0.4)
    shown = cells(board([*both, pgd], "table-11"), "kl")
    assert shown["PGD-10, ours (%)"].endswith("(of seed 0)")
    assert "of seed" not in shown["AutoAttack, ours (%)"]
    assert shown["Worst, ours (%)"] == "–"


def test_budgets_are_never_mixed_and_only_budget_paper_has_differences() -> None:
    paper, mini = boards([make_run(TABLE, ROW, budget="paper", robust=0.32), make_run(TABLE, ROW, robust=0.2, n=1000)])
    assert (paper.name, mini.name) == ("table-02-paper", "table-02-mini")
    assert cells(paper, ROW)["AutoAttack, ours (%)"].startswith("32.00")
    assert cells(mini, ROW)["AutoAttack, ours (%)"].startswith("20.00")
    assert (cells(paper, ROW)["n"], cells(mini, ROW)["n"]) == ("10000", "1000")
    assert any("difference" in header for header in (*paper.table().header, *paper.data().header))
    assert not any("difference" in header for header in (*mini.table().header, *mini.data().header))
    assert cells(mini, ROW)["AutoAttack, paper (%)"] == "31.91"
    assert "budget mini" in mini.title
    assert any("not comparable" in note for note in mini.notes)


@pytest.mark.parametrize("budget", ["paper", "mini"])
def test_a_part_of_the_test_set_is_only_named(budget: str) -> None:
    whole = make_run(TABLE, ROW, budget=budget, robust=0.32)
    few = make_run(TABLE, ROW, budget=budget, robust=0.5, n=64, partial=True)
    other = make_run(TABLE, OTHER, budget=budget, robust=0.5, n=64, partial=True)
    found = board([few, other, whole])
    assert cells(found, ROW)["AutoAttack, ours (%)"].startswith("32.00")
    assert cells(found, OTHER)["AutoAttack, ours (%)"] == "–"
    (note,) = [note for note in found.notes if "part of the test set" in note]
    assert few.id in note
    assert other.id in note
    assert boards([few, other]) == []


def test_smoke_is_no_result() -> None:
    records = [make_run(TABLE, row, budget="smoke") for row in (ROW, OTHER)]
    assert boards(records) == []
    found = board(records, smoke=True)
    assert "smoke: no result" in found.title
    assert found.comparisons == {}
    assert not any("difference" in header for header in found.table().header)


def test_quoted_rows_keep_the_papers_values_and_are_marked() -> None:
    found = board([make_run(TABLE, ROW)])
    shown = cells(found, "las-at-basic")
    assert (shown["Clean, paper (%)"], shown["Clean, ours (%)"], shown["Seeds"]) == ("64.89", "–", "quoted")
    assert (cells(found, "lbgat-basic")["Seeds"], numbers_of(found, "las-at-basic")["quoted"]) == ("–", "true")
    assert any(note.startswith("LAS-AT, ACAT: quoted") for note in found.notes)


def test_claims_are_compared_in_pairs_if_both_rows_are_measured() -> None:
    ikl, awp = make_run(TABLE, ROW, n=100, robust=0.3), make_run(TABLE, OTHER, n=100, robust=0.2)
    right = {ikl.id: np.arange(100) < 30, awp.id: np.arange(100) < 20}
    found = board([ikl, awp], load_flags=flags_of(right))
    outcomes = {found.manifest.claims[number]: outcome for number, outcome in found.comparisons.items()}
    assert set(outcomes) == {Claim(better=ROW, than=OTHER, column=column) for column in ("clean", "autoattack")}
    p = 2 * 0.5**10  # ten images differ, all in favor of one row
    assert [outcome.p for outcome in outcomes.values()] == pytest.approx([p, p])
    line = next(note for note in found.notes if note.startswith("AutoAttack, IKL-AT"))
    assert "+10.00 points [" in line
    assert f"p = {p:.2g} (McNemar's exact test, seed 0, n = 100): significant" in line
    numbers = {row: numbers_of(found, row) for row in (ROW, OTHER)}
    assert (numbers[ROW]["claim_2_than"], numbers[ROW]["claim_2_column"]) == (OTHER, "autoattack")
    assert float(numbers[ROW]["claim_2_difference"]) == pytest.approx(10)
    assert numbers[OTHER]["claim_2_than"] == ""
    assert board([ikl]).comparisons == {}
    assert any(
        "not compared: only one seed in common, and no per-image flags" in note for note in board([ikl, awp]).notes
    )


def test_evaluations_that_no_column_uses_are_named() -> None:
    found = board([make_run(TABLE, ROW), make_run(TABLE, ROW, attacks=["pgd-20"], id="a PGD of mine")])
    assert any("not used in this table: a PGD of mine." in note for note in found.notes)
    others = [make_run(TABLE, ROW, attacks=["pgd-20"], id=f"PGD {number}") for number in range(7)]
    found = board([make_run(TABLE, ROW), *others])
    assert any("not used in this table: PGD 0, PGD 1, PGD 2, PGD 3 and 3 more." in note for note in found.notes)


def test_rows_outside_the_paper_show_other_published_values() -> None:
    found = board([make_run("official-extra", "cifar100-gkl", budget="paper", clean=0.66)], "official-extra")
    shown = cells(found, "cifar100-gkl")
    assert (shown["Clean, published (%)"], shown["Clean, difference"]) == ("65.76", "+0.24")
    assert numbers_of(found, "cifar100-gkl")["clean_published"] == "65.76"
    assert not any("paper" in header for header in found.table().header)


@pytest.mark.parametrize("name", [name for name in names() if load(name).columns])
def test_every_table_without_records_shows_the_papers_values_in_every_format(name: str) -> None:
    found = published_board(load(name))
    assert found.name == name
    table, printed = found.table(), {row["row"]: row for row in plain(found)}
    text = "".join(to_markdown(table).split())
    for row in found.manifest.rows:
        for key, value in row.paper.items():
            assert float(printed[row.name][f"{key}_paper"]) == value
            assert f"{value:.2f}" in text or f"{value:g}" in text
    assert to_html(table).count("<tr>") == len(table.rows) + 1
    latex = to_latex(table, found.name)
    assert latex.isascii()
    assert "?" not in latex
    pages = [part.partition(r"\bottomrule")[0] for part in latex.split(r"\midrule")[1:]]
    body = [line for part in pages for line in part.splitlines() if "&" in line]
    assert [line.replace(r"\&", "").count("&") for line in body] == [len(table.header) - 1] * len(table.rows)


def test_published_weights_have_columns_of_their_own_and_the_most_images_count() -> None:
    file: dict[str, Any] = {"seed": None, "training": {}, "budget": "own", "attacks": []}
    file |= {"checkpoint": "official/ikl-at-cifar100.pt", "weights": "as in the file"}
    foreign = [
        make_record(**{**file, "id": name, "clean": clean, "n": n, "partial": n < 10_000} | other)
        for name, clean, n, other in (
            ("few", 0.5, 1000, {}),
            ("most", 0.6, 10_000, {}),
            ("elsewhere", 0.7, 10_000, {"checkpoint": "official/ikl-at-cifar10.pt"}),
            ("attacked", 0.55, 5000, {"attacks": ["apgd-ce"], "robust": 0.2}),
            ("another dataset", 0.8, 10_000, {"dataset": "cifar10"}),
        )
    ]
    run = make_run(TABLE, ROW, robust=0.3, clean=0.9)
    plainly, beside = board([run]), board([run, *foreign])
    assert not any("weights" in header for header in [*numbers_of(plainly, ROW), *plainly.table().header])
    ours = {key: value for key, value in numbers_of(beside, ROW).items() if "weights" not in key}
    assert ours == numbers_of(plainly, ROW)
    assert numbers_of(beside, ROW)["clean_weights_mean"] == "60.00"
    assert "autoattack_weights_mean" not in numbers_of(beside, ROW), "APGD alone is not AutoAttack"
    assert cells(beside, ROW)["Clean, published weights (%)"].startswith("60.00 [")
    assert numbers_of(beside, OTHER)["clean_weights_mean"] == ""
    assert any("clean (most)" in note for note in beside.notes)
    reference = replace(run, id=f"reference/{run.id}")
    assert "weights" not in "".join(numbers_of(board([reference, *foreign]), ROW))
