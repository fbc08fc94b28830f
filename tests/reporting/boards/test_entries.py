"""Boards of entries show anyone's networks beside RobustBench's list, and who was verified; names are unique."""

import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Annotation, Text

from dkl import records
from dkl.errors import UserError, shortened
from dkl.published import published_entries
from dkl.records import Record, load_all
from dkl.records.verification import Verification, checksum, save_verification
from dkl.reporting import Leaderboard, write_tables
from dkl.reporting.boards.entries import EntryFilter, entry_boards, load_entries
from dkl.reporting.figures.style import inline
from dkl.reporting.figures.tradeoff import entries as drawn_entries
from dkl.reporting.figures.tradeoff import pareto_front
from tests.factories import make_flags, make_record
from tests.reporting.figures.common import styled


def foreign(method: str, **fields: Any) -> Record:
    """A record of weights trained elsewhere, on the whole test set of CIFAR-10."""
    about = {"seed": None, "training": {}, "budget": "own", "n": 10_000, "architecture": "WideResNet-28-10"}
    return make_record(method=method, **{**about, **fields})


def save(record: Record, folder: Path) -> Record:
    return records.load(records.save(record, make_flags(record), folder))


def verified(record: Record, results: Path, differ: int = 0) -> None:
    about = {"id": record.id, "n": record.n, "checked": 750, "differ": differ, "lost": 0, "seed": 0}
    found = Verification(**about, record_sha256=checksum(record), created=record.created, versions={})
    save_verification(found, results)


def board(results: Path, *folders: Path, **shown: Any) -> Leaderboard:
    entries, problems = load_entries(results, folders)
    assert not problems
    (made,) = entry_boards(entries, EntryFilter(**shown))
    return made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results with one verified entry, one claimed one, and a run of ours; another folder with one entry."""
    here, there = tmp_path / "results" / "records", tmp_path / "friend" / "records"
    verified(save(foreign("Mine", clean=0.9, robust=0.6), here), here.parent)
    save(foreign("Claim", clean=0.8, robust=0.55, additional_data=True, architecture="PreActResNet-18"), here)
    save(make_record(budget="paper", n=10_000, clean=0.85, robust=0.5), here)
    save(make_record(budget="mini", method="mini", n=10_000, clean=0.85, robust=0.5), here)
    theirs = save(foreign("Theirs", clean=0.95, robust=0.75, checkpoint_sha256="t" * 64), there)
    verified(theirs, there.parent)  # their word, which does not count here
    return tmp_path / "results"


def test_entries_stand_beside_ours_and_the_published_list(results: Path) -> None:
    shown = board(results, results.parent / "friend" / "records")
    own = {row.method: row for row in shown.rows if row.source != "RobustBench"}
    assert set(own) == {"Mine", "Claim", "ikl", "Theirs"}
    published = [entry for entry in published_entries() if (entry.dataset, entry.norm) == ("cifar10", "Linf")]
    assert len(shown.rows) == 4 + len(published)
    robust = [row.means["robust"].mean for row in shown.rows]
    assert robust == sorted(robust, reverse=True)
    assert [row.rank for row in shown.rows] == list(range(1, len(robust) + 1))
    assert own["Mine"].status == "verified, ≤ 0.4 %"
    assert own["Claim"].status == own["Theirs"].status == "claimed"
    assert (own["Theirs"].source, own["Mine"].source) == ("friend", None)
    assert any("78fcc9e, 2025-03-31" in note for note in shown.notes)
    verified(load_all(results.parent / "friend" / "records")[0][0], results)
    again = {row.method: row.status for row in board(results, results.parent / "friend" / "records").rows}
    assert again["Theirs"] == "verified, ≤ 0.4 %"


def test_ranks_compare_equal_images_only(results: Path) -> None:
    for method, fields in {
        "Sorted": {"clean": 0.99, "robust": 0.98, "data_sha256": "e" * 64},
        "Few": {"dataset": "faces", "n": 20, "clean": 1.0, "robust": 1.0, "data_sha256": "f" * 64},
        "Many": {"dataset": "faces", "n": 1000, "clean": 0.5, "robust": 0.5},
        "More": {"dataset": "faces", "n": 1000, "clean": 0.4, "robust": 0.4},
        "Whole": {"dataset": "imagenet", "n": 50_000, "eps": 4 / 255, "eps_text": "4/255"},
    }.items():
        save(foreign(method, **fields), results / "records")
    boards = {board.name: board for board in entry_boards(load_entries(results)[0])}
    ranks = {name: {row.method: row.rank for row in board.rows if row.seeds} for name, board in boards.items()}
    assert {row.source for row in boards["entries-imagenet-Linf-eps4_255"].rows} == {"RobustBench"}, "its 5,000 images"
    assert ranks["entries-imagenet-Linf-eps4_255-images-dddddddd"] == {"Whole": 1}
    assert ranks["entries-faces-Linf-eps8_255"] == {"Many": 1, "More": 2}
    assert ranks["entries-faces-Linf-eps8_255-images-ffffffff"] == {"Few": 1}
    assert ranks["entries-cifar10-Linf-eps8_255-images-eeeeeeee"] == {"Sorted": 1}
    assert "Sorted" not in ranks["entries-cifar10-Linf-eps8_255"]
    assert "on other test images" in boards["entries-faces-Linf-eps8_255-images-ffffffff"].notes[0]
    table = boards["entries-faces-Linf-eps8_255-images-ffffffff"].table()
    assert table.rows[0][table.header.index("n")] == "20, test set unknown"


def test_equal_weights_are_remarked_and_never_one_row(results: Path) -> None:
    mine = foreign("Mine", clean=0.9, robust=0.6)
    copy = {"id": "copy", "checkpoint_sha256": mine.checkpoint_sha256, "config_hash": mine.config_hash}
    save(foreign("Copy", clean=0.9, robust=0.6, **copy), results.parent / "friend" / "records")
    shown = board(results, results.parent / "friend" / "records")
    assert {"Mine", "Copy"} <= {row.method for row in shown.rows}
    assert f"Equal weights (sha256 {mine.checkpoint_sha256[:8]}): Copy (friend), Mine (here)." in shown.notes


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"verified": True}, {"Mine"}),
        ({"extra": True, "architecture": "preactresnet"}, {"Claim", "Rade2021Helper_R18_extra"}),
        ({"architecture": "wrn10"}, {"ikl"}),
    ],
)
def test_rows_are_filtered_and_keep_their_ranks(results: Path, asked: dict[str, Any], names: set[str]) -> None:
    everything = {row.method: row.rank for row in board(results).rows}
    shown = board(results, **asked)
    assert {row.method for row in shown.rows} == names
    assert all(row.rank == everything[row.method] for row in shown.rows)


def test_boards_are_filtered(results: Path) -> None:
    entries, _ = load_entries(results)
    for asked in ({"dataset": "digits"}, {"norm": "l2"}, {"eps": 0.5}, {"architecture": "none"}):
        assert entry_boards(entries, EntryFilter(**asked)) == []
    assert len(entry_boards(entries, EntryFilter(dataset="cifar10", norm="linf", eps=8 / 255))) == 1


def test_the_published_list_of_a_dataset_is_shown_without_entries(results: Path) -> None:
    entries, _ = load_entries(results)
    boards = {board.name: board for board in entry_boards(entries, EntryFilter(dataset="cifar10"))}
    assert set(boards) == {"entries-cifar10-Linf-eps8_255", "entries-cifar10-L2-eps0.5"}
    published = [entry.id for entry in published_entries() if (entry.dataset, entry.norm) == ("cifar10", "L2")]
    assert sorted(row.method for row in boards["entries-cifar10-L2-eps0.5"].rows) == sorted(published)
    assert len(entry_boards([], EntryFilter(dataset="imagenet"))) == 1
    assert entry_boards([], EntryFilter(verified=True, dataset="imagenet")) == []


def test_parts_and_bad_verifications_do_not_count(results: Path) -> None:
    folder = results / "records"
    save(foreign("Part", n=1000, partial=True), folder)
    record = save(foreign("Bad", clean=0.7, robust=0.5), folder)
    verified(record, results, differ=40)
    assert {row.method: row.status for row in board(results).rows}["Bad"] == "claimed"
    verified(record, results)
    save(foreign("Bad", clean=0.7, robust=0.45), folder)  # the same id, evaluated again
    rows = {row.method: row for row in board(results).rows}
    assert rows["Bad"].status == "claimed"
    assert "Part" not in rows


def test_a_name_cannot_be_taken_twice(results: Path) -> None:
    later = {"created": "2025-06-01T00:00:00+00:00", "config_hash": "f" * 8, "checkpoint_sha256": "f" * 64}
    save(foreign("mine", id="second", clean=0.99, robust=0.9, **later), results / "records")
    entries, problems = load_entries(results)
    assert "second" not in {entry.record.id for entry in entries}
    assert problems == [
        "second: the name 'mine' is taken by Mine-cifar10-WideResNet-28-10-own-seedNone-linf; "
        "evaluate again with label=NAME"
    ]


def test_an_id_cannot_be_taken_twice(results: Path) -> None:
    other = results.parent / "other"
    save(foreign("Mine", clean=0.99, robust=0.98), other)
    _, problems = load_entries(results, [other])
    assert len(problems) == 1
    assert "the id is taken by another record" in problems[0]
    assert load_entries(results, [results / "records"])[1] == [], "the same record again is no other one"


def test_a_folder_that_is_missing_is_refused(results: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder: give folders with records"):
        load_entries(results, [Path("nowhere")])


def test_tables_are_written_also_from_another_folder_alone(results: Path, tmp_path: Path) -> None:
    mine = next(record for record in load_all(results / "records")[0] if record.method == "Mine")
    verified(mine, tmp_path / "empty")
    report = write_tables(tmp_path / "empty", folders=[results / "records"], shown=EntryFilter(verified=True))
    (written,) = tmp_path.glob("empty/tables/entries-*.csv")
    assert written in report.written
    header, row = written.read_text().splitlines()
    values = dict(zip(header.split(","), row.replace('"verified, ', '"verified ').split(","), strict=True))
    assert (values["method"], values["verified"], values["robust_mean"]) == ("Mine", "true", "60.00")
    with pytest.raises(UserError, match="dataset=cifar1o has no record"):
        write_tables(tmp_path / "empty", folders=[results / "records"], shown=EntryFilter(dataset="cifar1o"))


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(90.0, 60.0), (95.0, 50.0), (80.0, 70.0), (85.0, 55.0), (95.0, 45.0), (90.0, 60.0)]
    front = {points[i] for i in pareto_front(points)}

    def beaten(a: tuple[float, float]) -> bool:
        return any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in points)

    assert front == {point for point in points if not beaten(point)}
    xs = [points[i][0] for i in pareto_front(points)]
    assert all(a < b for a, b in itertools.pairwise(xs))


def test_the_drawing_has_all_entries_and_the_published_rows_near_the_best(results: Path) -> None:
    for name in ("Mine too", "Mine again, by a long name", "Nearly mine"):  # beside each other, in the midst of points
        save(foreign(name, clean=0.9, robust=0.6, checkpoint_sha256=name), results / "records")
    rows = board(results, results.parent / "friend" / "records").rows
    figure = styled(drawn_entries, rows)
    dots = {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid() and line.get_marker() != "None"}
    own = [i for i, row in enumerate(rows) if row.source != "RobustBench"]
    labels = figure.findobj(Annotation)
    assert [label.get_text() for label in labels] == [shortened(rows[i].method, 28) for i in own]
    assert {dots[f"row-{i}"].get_marker() for i in own if rows[i].method == "Mine"} == {"D"}, "verified"
    assert 0 < len(rows) - len(dots) < len(rows) / 2
    assert f"{len(rows) - len(dots)} published rows lie outside" in [text.get_text() for text in figure.findobj(Text)]
    (best,) = [i for i in own if rows[i].method == "Theirs"]
    fronts = [line for line in figure.axes[0].lines if line.get_gid() is None and len(line.get_xdata()) > 1]
    assert dots[f"row-{best}"].get_xydata()[0].tolist() in fronts[0].get_xydata().tolist()
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    pixels = [figure.axes[0].transData.transform(dot.get_xydata()[0]) for dot in dots.values()]
    assert not any(box.contains(*pixel) for box in boxes for pixel in pixels)
    svg = inline(partial(drawn_entries, rows), "board")
    assert all(f'id="board-row-{i}"' in svg and f'id="board-row-{i}-0"' in svg for i in own)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) <= set(re.findall(r' id="([^"]*)"', svg))
    assert all(name.startswith("board-") for name in re.findall(r' id="([^"]*)"', svg))
