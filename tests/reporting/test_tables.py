"""From a folder of records to files."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from dkl.cli import main
from dkl.errors import UserError
from dkl.records import Record, save
from dkl.reporting import TablesReport, write_tables
from tests.factories import make_flags
from tests.reporting.factories import make_accuracy, make_record, make_run, make_seeds


def write(folder: Path, records: list[Record], include_smoke: bool = False) -> TablesReport:
    """Save ``records`` in ``folder`` and write the tables of all records there."""
    for record in records:
        save(record, make_flags(record), folder / "records")
    return write_tables(folder, include_smoke=include_smoke)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_board_in_every_format_and_every_model(tmp_path: Path) -> None:
    digits = make_record(dataset="digits", eps=0.1, eps_text="0.1")
    accurate = make_accuracy(id="accurate", shots={"many": 0.81, "few": 0.12})
    report = write(tmp_path, [*make_seeds([0.2, 0.3]), digits, accurate])
    tables = {path.name for path in (tmp_path / "tables").iterdir()}
    stems = ("cifar100-Linf-eps8_255-own", "digits-Linf-eps0.1-own", "cifar100-accuracy-own")
    assert tables == {f"{stem}.{ending}" for stem in stems for ending in ("md", "csv", "tex", "html")}
    assert set(report.written) == set(contents(tmp_path / "tables")) | set(contents(tmp_path / "model_info"))
    models = {path.name for path in (tmp_path / "model_info").rglob("*.json")}
    assert models == {f"Unpublished_WRN-34-10_IKL-AT_s{seed}_own.json" for seed in (0, 1)}
    assert len(list((tmp_path / "model_info").rglob("*.json"))) == 3
    assert (report.problems, report.skipped) == ([], [])
    for stem in stems:
        assert (tmp_path / "tables" / f"{stem}.md").read_text(encoding="utf-8") in report.markdown
    for ending in ("md", "csv", "tex", "html"):
        text = (tmp_path / "tables" / f"cifar100-accuracy-own.{ending}").read_text(encoding="utf-8")
        assert all(number in text for number in ("70.00", "92.00", "71.00", "81.00", "12.00", "ResNet-56"))
    with (tmp_path / "tables/cifar100-Linf-eps8_255-own.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["robust_mean"]) == pytest.approx(25)
    assert float(row["clean_mean"]) == pytest.approx(100 * digits.clean)


def test_boards_with_one_file_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    names = ("my faces", "my_faces", "My_faces")
    report = write(tmp_path, [make_record(dataset=name) for name in names])
    stems = [f"my_faces-linf-eps8_255-own{end}" for end in ("", "-2", "-3")]
    assert sorted(path.stem.lower() for path in (tmp_path / "tables").glob("*.md")) == stems
    assert len({board.title for board in report.boards}) == len(names)


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path, [*make_seeds([0.2, 0.3]), make_record(method="TRADES", warnings=["odd"])])
    before = contents(tmp_path)
    assert write(tmp_path, []) == first
    assert contents(tmp_path) == before


def test_tables_of_earlier_commands_are_named_but_no_file_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [make_record()])
    (tmp_path / "tables" / "mine.md").write_text("of a person\n")
    main(["tables", f"results={tmp_path}"])
    assert "from an earlier command" not in capsys.readouterr().err
    for path in (tmp_path / "records").iterdir():
        path.unlink()
    write(tmp_path, [make_record(dataset="digits", eps=0.1, eps_text="0.1")])
    main(["tables", f"results={tmp_path}"])
    assert capsys.readouterr().err.endswith(f"do not need: {tmp_path / 'tables' / 'cifar100-Linf-eps8_255-own'}\n")


@pytest.mark.parametrize("broken", [False, True])
def test_no_records_is_an_error_with_the_fix(tmp_path: Path, broken: bool) -> None:
    if broken:
        (tmp_path / "records").mkdir()
        (tmp_path / "records" / "torn.json").write_text("{")
    with pytest.raises(UserError, match=r"dkl train.*dkl evaluate") as error:
        write(tmp_path, [])
    assert str(tmp_path / "records") in str(error.value)
    assert ("torn.json" in str(error.value)) == broken


def test_smoke_alone_makes_no_table_and_is_reported(tmp_path: Path) -> None:
    report = write(tmp_path, [make_record(budget="smoke", id="quick"), make_record(dataset="cifar10")])
    assert "cifar100" not in report.markdown
    assert any("quick" in problem for problem in report.problems)
    shown = write(tmp_path, [], include_smoke=True)
    assert "smoke: no result" in shown.markdown
    assert not shown.problems
    assert not list((tmp_path / "model_info" / "cifar10").rglob("*smoke*"))
    assert len(list((tmp_path / "model_info").rglob("*.json"))) == 1


def test_a_paper_table_is_written_if_a_run_belongs_to_its_rows(tmp_path: Path) -> None:
    runs = [make_run("table-07", row, n=1000, robust=0.2) for row in ("alpha-3", "alpha-6")]
    report = write(tmp_path, [*runs, make_record(dataset="digits", id="other")])
    (tmp_path / "records" / f"{runs[0].id}.json").replace(tmp_path / "records" / "torn.json")
    (tmp_path / "records" / "torn.json").write_text("{")
    after = write(tmp_path, [])
    written = {path.name for path in report.written}
    for ending in ("md", "csv", "tex", "html"):
        assert f"table-07-mini.{ending}" in written
    assert not any(name.startswith("table-") and "table-07-mini" not in name for name in written)
    own = report.text_of("table-07")
    assert own not in report.text_of("quickstart")  # which has no table of its own: leaderboards are shown
    assert "digits" in report.text_of("quickstart")
    assert "digits" not in own
    assert report.text_of("table-07", "mini") == own
    assert any("torn.json" in problem for problem in after.problems)
    assert own.count("20.00 [") > after.text_of("table-07").count("20.00 [") > 0


def test_tables_need_no_torch() -> None:
    code = "import sys, dkl.reporting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
