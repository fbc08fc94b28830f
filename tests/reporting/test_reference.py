"""Reference records are shown beside the records of a results folder, marked, and never averaged with them."""

import json
from pathlib import Path
from typing import Any

from dkl.records import Record, save
from dkl.reporting import TablesReport, leaderboards, write_tables
from dkl.reporting.grouping import is_reference, load_with_reference
from dkl.reporting.site import write_site
from tests.factories import make_flags
from tests.reporting.factories import make_record, make_run, make_seeds


def write(results: Path, own: list[Record], reference: list[Record]) -> TablesReport:
    """Save records in ``results`` and in its reference folder, with curves of one epoch, and write all tables."""
    for folder, records, loss in ((results, own, 1.0), (results / "reference", reference, 2.0)):
        for record in records:
            save(record, make_flags(record), folder / "records", [{"epoch": 1, "loss": loss}])
    return write_tables(results)


def rows(report: TablesReport) -> list[tuple[str | None, tuple[int | None, ...], float]]:
    (board,) = report.boards
    return [(row.source, row.seeds, round(row.means["robust"].mean, 4)) for row in board.rows]


def test_they_have_rows_of_their_own_also_if_a_record_is_the_same(tmp_path: Path) -> None:
    reference = make_seeds([0.2, 0.3])
    report = write(tmp_path, [reference[1]], reference)
    assert rows(report) == [(None, (1,), 0.3), ("reference", (0, 1), 0.25)]
    shown = report.markdown
    assert shown.count("| reference |") == shown.count("| ours      |") == 1
    assert "no row averages them with ours" in shown
    assert len(list((tmp_path / "model_info").rglob("*.json"))) == 1  # only ours


def test_reference_records_alone_have_boards(tmp_path: Path) -> None:
    report = write(tmp_path, [], make_seeds([0.2, 0.3]))
    assert rows(report) == [("reference", (0, 1), 0.25)]
    (tmp_path / "reference" / "records" / "torn.json").write_text("{")
    assert "torn.json" in write_tables(tmp_path).problems[0]


def test_a_table_of_the_paper_has_a_board_of_each(tmp_path: Path) -> None:
    own, reference = (make_run("table-07", "alpha-3", n=1000, robust=robust) for robust in (0.4, 0.2))
    report = write(tmp_path, [own], [reference])
    tables = {board.name: board.table() for board in report.boards if board.name.startswith("table-07")}
    assert list(tables) == ["table-07-mini", "table-07-mini-reference"]
    titles = [table.title.partition(" (")[2] for table in tables.values()]
    assert titles == ["budget mini)", "budget mini), reference results"]
    cells = [[cell for row in table.rows for cell in row] for table in tables.values()]
    assert [[sum(cell.startswith(value) for cell in found) for value in ("40.00 [", "20.00 [")] for found in cells] == [
        [1, 0],
        [0, 1],
    ]


def test_the_page_shows_the_curves_of_each(tmp_path: Path) -> None:
    record = make_record(attacks=[], budget="mini")
    write(tmp_path, [record], [record])
    records, problems = load_with_reference(tmp_path)
    assert not problems
    assert [is_reference(found) for found in records] == [False, True]
    page = write_site(tmp_path, records, leaderboards(records), [], [], []).read_text()
    data: dict[str, Any] = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    shown = {one["id"]: one for one in data["records"]}
    assert {name: data["runs"][one["run"]]["curves"]["loss"] for name, one in shown.items()} == {
        record.id: [1],
        f"reference/{record.id}": [2],
    }
    assert "Source" not in shown[record.id]["facts"]
    assert shown[f"reference/{record.id}"]["facts"]["Source"].startswith("reference")
    assert f'href="#run/reference%2F{record.id}"' in page
