"""Records, flags and curves are loaded as they were saved; broken and foreign files are refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dkl import records
from dkl.errors import UserError
from dkl.records import Record, storage
from dkl.threat import AUTOATTACK
from tests.factories import make_flags
from tests.records.common import Make, change, refused


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"seed": None, "budget": "own", "partial": True, "git_commit": "abc123", "warnings": ["ran on a busy machine"]},
        {"attacks": ["pgd-20"], "clean": 1, "robust": 0, "norm": "L2", "eps": 0.5, "eps_text": "0.5"},
        {"n": 3000, "clean": 0.1 + 0.2, "robust": 1 / 3 - 0.1, "method": "größer/kleiner ± γ".replace("/", "-")},
        {"hardware": {"gpus": [{"name": "H100", "gb": 80}]}, "clean": 0.0, "robust": 0.0},
        {"attacks": [], "top5": 0.9, "shots": {"many": 1, "few": 0.25}, "best": 0.8, "best_epoch": 3},
        {"attacks": []},
        {"top5": 0.75, "best": 0.7, "best_epoch": 1},
    ],
)
def test_a_record_and_its_flags_come_back(make_record: Make, tmp_path: Path, overrides: dict[str, Any]) -> None:
    record = make_record(**overrides)
    flags = make_flags(record)
    path = records.save(record, flags, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / f"{record.id}.json"
    assert records.load(path) == record
    loaded = records.load_flags(path)
    assert loaded.keys() == flags.keys()
    for name, values in flags.items():
        assert loaded[name].dtype == np.bool_
        assert np.array_equal(loaded[name], values)
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".json", ".npz"]
    assert records.load_curves(path) == []


def test_flags_of_a_record_whose_id_holds_dots(make_record: Make, tmp_path: Path) -> None:
    first, second = make_record(id="wrn.v1.0"), make_record(id="wrn.v1.1", robust=0.5)
    paths = [records.save(record, make_flags(record), tmp_path) for record in (first, second)]
    for path, record in zip(paths, (first, second), strict=True):
        assert records.load_flags(path)[AUTOATTACK[-1]].mean() == record.robust
        assert records.load(path) == record


def test_the_json_is_plain_and_readable(saved: Path) -> None:
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert set(content) == {field.name for field in dataclasses.fields(Record)}
    assert content["per_attack"][AUTOATTACK[0]].keys() == {"robust", "seconds"}
    assert saved.read_text().endswith("}\n")


def test_a_save_that_fails_leaves_the_old_record_and_its_flags(make_record: Make, saved: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    bad = make_record(robust=0.125, hardware={"device": object()})
    with pytest.raises(TypeError):
        records.save(bad, make_flags(bad), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"text"', "nonsense", '{"id": "x"} trailing', '{"id": "x'])
def test_broken_json_and_a_missing_file_are_refused(saved: Path, text: str, tmp_path: Path) -> None:
    saved.write_text(text)
    refused(saved)
    refused(tmp_path / "absent.json")


def test_committed_records_load() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "reference" / "records"
    found, problems = records.load_all(folder)
    assert not problems
    assert len(found) == len(list(folder.glob("*.json"))) > 0


def test_load_all_returns_the_good_and_names_the_bad(make_record: Make, tmp_path: Path) -> None:
    made = [make_record(seed=seed) for seed in (2, 0, 1)]
    paths = [records.save(record, make_flags(record), tmp_path) for record in made]
    (tmp_path / "broken.json").write_text("{")
    change(paths[0], schema=7)
    (tmp_path / "notes.txt").write_text("not a record")
    found, problems = records.load_all(tmp_path)
    assert [record.seed for record in found] == [0, 1]
    assert len(problems) == 2
    assert any("broken.json" in problem for problem in problems)
    assert any(paths[0].name in problem and "schema is 7" in problem for problem in problems)
    assert records.load_all(tmp_path / "absent") == ([], [])


def test_flags_that_unpack_to_too_much_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LARGEST_FLAGS", 1000)
    with pytest.raises(UserError, match=r"\.npz is not a usable file of flags: it unpacks to .* more than 1,000"):
        records.load_flags(saved)


def test_flags_hold_no_pickles(saved: Path) -> None:
    np.savez(saved.with_suffix(".npz"), clean=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=saved.with_suffix(".npz").name):
        records.load_flags(saved)


@pytest.mark.parametrize("cut", [2, 0, 50, 300, -10])
def test_truncated_flags_are_refused_by_name(saved: Path, cut: int) -> None:
    flags = saved.with_suffix(".npz")
    flags.write_bytes(flags.read_bytes()[:cut])
    with pytest.raises(UserError, match=flags.name):
        records.load_flags(saved)


EPOCHS = [{"epoch": 1, "lr": 0.1, "loss": 1 / 3}, {"epoch": 2, "lr": 1e-05, "loss": 0.25, "test_accuracy": 0.5}]


def test_curves_are_exact_and_omit_unmeasured_values(make_record: Make, tmp_path: Path) -> None:
    record = make_record(id="with.dots")
    path = records.save(record, make_flags(record), tmp_path, EPOCHS)
    assert path.with_suffix(".csv").name == "with.dots.csv"
    assert records.load_curves(path) == EPOCHS
    assert records.load(path) == record


@pytest.mark.parametrize(
    "text", ["epoch,lr\n1,fast\n", "lr\n0.1\n", "epoch\n1,2\n", 'epoch\n"1', "epoch\n<script>\n", "epoch\n\xff\n"]
)
def test_broken_curves_are_refused_by_name(saved: Path, text: str) -> None:
    saved.with_suffix(".csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=saved.with_suffix(".csv").name):
        records.load_curves(saved)
