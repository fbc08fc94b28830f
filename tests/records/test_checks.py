"""Falsified, damaged and absurd records are found, named and left out; none of them stops the tables."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dkl import records
from dkl.errors import UserError
from dkl.records import Record
from dkl.reporting import write_tables
from dkl.reporting.boards.leaderboards import leaderboards
from dkl.reporting.robustbench import write_model_info
from dkl.reporting.site import runs_data, runs_table
from dkl.storage.files import LARGEST_TEXT
from tests.factories import make_flags, make_record

Content = dict[str, Any]
CURVES = [{"epoch": 1, "test_accuracy": 0.5}, {"epoch": 2, "test_accuracy": 0.75}]
OTHER = {
    "clean": np.arange(400) < 200,
    **{name: np.arange(400) < 100 for name in ("apgd-ce", "apgd-t", "fab-t", "square")},
}


def honest(**overrides: Any) -> Record:
    """Return a record of 400 images: clean 75 %, robust 18.75 %."""
    fields = {"n": 400, "clean": 0.75, "robust": 0.1875, "best": 0.75, "best_epoch": 2, "id": "honest", **overrides}
    return make_record(**fields)


def save(record: Record, folder: Path) -> Path:
    return records.save(record, make_flags(record), folder, CURVES if record.best else ())


def attack(name: str, **values: float) -> Callable[[Content, Content], None]:
    return lambda content, flags: content["per_attack"][name].update(values)


def fields(**values: Any) -> Callable[[Content, Content], None]:
    return lambda content, flags: content.update(values)


def trained(**values: Any) -> Callable[[Content, Content], None]:
    return lambda content, flags: content["training"].update(values)


def raised(content: Content, flags: Content) -> None:
    """Robust accuracy everywhere in the record, but not in the flags."""
    content["robust"] = content["per_attack"]["square"]["robust"] = 0.45


def rising(content: Content, flags: Content) -> None:
    """A later attack leaves more images correct than an earlier one, in record and flags."""
    content["per_attack"]["square"]["robust"] = 0.5
    flags["square"] = np.arange(400) < 200
    content["robust"] = min(result["robust"] for result in content["per_attack"].values())


def not_nested(content: Content, flags: Content) -> None:
    """As many images as before, but others than those that were left."""
    flags["square"] = np.arange(400) >= 400 - 75


FALSIFICATIONS: dict[str, tuple[Callable[[Content, Content], None], str]] = {
    "robust": (fields(robust=0.45), "robust is 0.45"),
    "robust everywhere": (raised, "square is 0.45, but the mean of its flags is 0.1875"),
    "clean": (fields(clean=0.9, best=0.9), "clean is 0.9, but the mean of its flags is 0.75"),
    "one attack": (attack("fab-t", robust=0.6), "fab-t is 0.6, but"),
    "top-5 accuracy": (fields(top5=0.8), "its file of flags lacks top5"),
    "n": (fields(n=10_000), "n is 10000, but its flags clean are bool of shape (400,)"),
    "a fraction impossible at n": (fields(clean=0.7511), "clean is 0.7511, but"),
    "an attack that raises the accuracy": (rising, "its flags square count images as correct that fab-t has"),
    "flags that are not nested": (not_nested, "its flags square count images as correct that fab-t has"),
    "another record's flags": (lambda content, flags: flags.update(OTHER), "clean is 0.75, but the mean of its flags"),
    "flags of fewer attacks": (lambda content, flags: flags.pop("square"), "its file of flags lacks square"),
    "flags of more attacks": (lambda content, flags: flags.update(new=flags["clean"]), "flags has new, which"),
    "no flags": (lambda content, flags: flags.clear(), "it is missing"),
    "flags of numbers": (lambda content, flags: flags.update(clean=flags["clean"] * 1), "its flags clean are int64"),
    "id": (fields(id="somebody"), "its id is somebody, but the file is named forged.json"),
    "radius": (fields(eps=8 / 255 + 1e-10), "but its text is 8/255"),
    "text of the radius": (fields(eps_text="2/255"), "but its text is 2/255"),
    "budget": (fields(budget="paper"), "budget is paper, but it was trained with budget mini"),
    "budget of weights trained elsewhere": (
        fields(budget="paper", seed=None, training={}),
        "weights trained elsewhere have budget own, not paper",
    ),
    "budget without a configuration": (fields(budget="paper", training={}), "trained with budget None"),
    "seed": (fields(seed=1), "seed is 1, but it was trained with seed 0"),
    "dataset": (trained(data={"name": "digits"}), "dataset is cifar10, but it was trained with dataset digits"),
    "a part as the whole": (trained(data={"name": "cifar10"}), "n is 400 of 10000 test images, but partial is false"),
    "best epoch": (fields(best=0.9), "best is 0.9, but the curves have 0.75 after epoch 2"),
    "a negative time": (fields(seconds=-1.0), "seconds is -1.0"),
    "an infinite time": (fields(step_seconds=float("inf")), "step_seconds is inf"),
    "NaN in a detail": (fields(hardware={"cores": float("nan")}), "hardware holds nan"),
    "a huge number in a detail": (fields(hardware={"cores": 10**400}), "hardware holds a whole number"),
    "a huge number": (fields(evaluation_seed=10**30), "evaluation_seed is 1000"),
    "an attack twice": (fields(attacks=["square", "square"]), "attacks names one twice"),
    "a date that is none": (fields(created="tomorrow"), "created is 'tomorrow'"),
    "a date in the future": (
        fields(created=(datetime.now(UTC) + timedelta(days=2)).isoformat()),
        "is more than a day in the future",
    ),
    "nesting": (trained(task=json.loads('{"a":' * 30 + "1" + "}" * 30)), "training is nested more than 20 levels"),
    "a configuration that is none": (trained(trainer=5), "training.trainer is not a group"),
}


def falsify(path: Path, change: Callable[[Content, Content], object], folder: Path) -> Path:
    """Write a falsified copy of the record in ``path`` as ``folder``/forged.json, without checksums."""
    content, flags = json.loads(path.read_text()), dict(records.load_flags(path))
    forged = folder / "forged.json"
    content |= {"id": forged.stem, "checksums": {}}
    change(content, flags)
    forged.write_text(json.dumps(content))
    forged.with_suffix(".csv").write_bytes(path.with_suffix(".csv").read_bytes())
    forged.with_suffix(".npz").unlink(missing_ok=True)
    if flags:
        np.savez_compressed(forged.with_suffix(".npz"), **flags)
    return forged


@pytest.mark.parametrize("falsification", FALSIFICATIONS)
def test_a_falsified_record_is_named_and_left_out(falsification: str, tmp_path: Path) -> None:
    path, (change, why) = save(honest(), tmp_path), FALSIFICATIONS[falsification]
    assert records.load(falsify(path, lambda content, flags: None, tmp_path)).clean == 0.75  # refused for the change
    forged = falsify(path, change, tmp_path)
    usable, problems = records.load_all(tmp_path)
    assert [record.id for record in usable] == ["honest"]
    (problem,) = problems
    assert f"{forged.stem}." in problem
    assert why in problem
    assert "\n" not in problem


def test_a_copy_as_another_seed_is_left_out_with_its_original(tmp_path: Path) -> None:
    save(honest(), tmp_path)
    save(honest(id="copy", seed=1, checkpoint_sha256=honest().checkpoint_sha256), tmp_path)
    save(honest(id="real", seed=2), tmp_path)
    found, problems = records.load_all(tmp_path)
    assert [record.id for record in found] == ["real"]
    assert len(problems) == 2
    assert all("equal weights: copy (seed 1), honest (seed 0); delete the copy" in problem for problem in problems)


def test_values_and_flags_that_agree_are_still_found_by_their_checksums(tmp_path: Path) -> None:
    """A name or a time contradicts nothing; neither do flags of other images with the same accuracies."""
    path = save(honest(), tmp_path)
    text, flags = path.read_text(), path.with_suffix(".npz").read_bytes()
    path.write_text(text.replace('"method": "ikl"', '"method": "new"'))
    with pytest.raises(UserError, match="its values were changed or damaged"):
        records.load(path)
    path.write_text(text.replace(": ", ":  "))  # the layout does not matter
    records.load(path)
    moved = {name: values[::-1] for name, values in records.load_flags(path).items()}
    np.savez_compressed(path.with_suffix(".npz"), **moved)
    with pytest.raises(UserError, match="its flags are not those that were saved with it"):
        records.load(path)
    path.with_suffix(".npz").write_bytes(flags)
    records.load(path)
    curves = path.with_suffix(".csv")
    curves.write_bytes(curves.read_bytes().replace(b"\n", b"\r\n"))
    assert records.load_curves(path) == CURVES
    curves.write_text(curves.read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match=r"honest\.csv .*does not match its checksum"):
        records.load_curves(path)
    curves.unlink()
    with pytest.raises(UserError, match=r"honest\.csv .*it is missing"):
        records.load_curves(path)


def absurd_files(folder: Path) -> int:
    """Write files that are no records into ``folder``; return how many."""
    (folder / "folder.json").mkdir()
    (folder / "deep.json").write_bytes(b"[" * 100_000)
    (folder / "empty.json").write_bytes(b"")
    (folder / "utf16.json").write_text('{"id": "ü"}', encoding="utf-16")
    (folder / "latin.json").write_text('{"id": "ü"}', encoding="latin-1")
    (folder / "surrogate.json").write_bytes(rb'{"id": "\ud800"}')
    (folder / "link.json").symlink_to(folder / "link.json")
    with (folder / "huge.json").open("wb") as file:
        file.truncate(LARGEST_TEXT + 1)
    return 8


def test_no_file_stops_the_tables(tmp_path: Path) -> None:
    path = save(honest(), tmp_path / "records")
    count = absurd_files(tmp_path / "records")
    for number, (change, _) in enumerate(FALSIFICATIONS.values()):
        (tmp_path / str(number)).mkdir()
        forged = falsify(path, change, tmp_path / str(number))
        for suffix in (".json", ".npz", ".csv"):
            if forged.with_suffix(suffix).exists():
                target = path.with_name(f"forged{number}{suffix}")
                text = forged.with_suffix(suffix).read_bytes()
                target.write_bytes(text.replace(b'"id": "forged"', f'"id": "forged{number}"'.encode()))
    report = write_tables(tmp_path)
    assert len(report.problems) == count + len(FALSIFICATIONS)
    assert all(str(tmp_path) in problem and "\n" not in problem for problem in report.problems)
    assert [[[record.id for record in row.records] for row in board.rows] for board in report.boards] == [[["honest"]]]
    assert [file.name for file in (tmp_path / "model_info").rglob("*.json")] == ["Unpublished_wrn10_2_ikl_s0_mini.json"]


def test_no_changed_byte_changes_a_figure(tmp_path: Path) -> None:
    """Change random bytes one at a time: the file is refused by name, or everything that is read is the same."""
    path = save(honest(), tmp_path)
    record, flags, random = records.load(path), records.load_flags(path), np.random.default_rng(0)
    refused = 0
    for suffix in (".json", ".npz", ".csv"):
        file = path.with_suffix(suffix)
        written = file.read_bytes()
        for place in random.choice(len(written), min(120, len(written)), replace=False):
            changed = bytearray(written)
            changed[place] ^= random.integers(1, 256)
            file.write_bytes(changed)
            try:
                found = records.load(path), records.load_curves(path)
            except UserError as error:
                refused += 1
                assert re.search(r"honest\.(json|npz|csv)", str(error))  # noqa: PT017
            else:
                assert found == (record, CURVES)
                assert all((records.load_flags(path)[name] == flags[name]).all() for name in flags)
        file.write_bytes(written)
    assert refused > 150


NUMBERS: tuple[Any, ...] = (None, True, -1, 0, 1, 10**40, 0.5, -0.5, 1e308)
TEXTS = ("", "x" * 300, "../../x", "\x00", "\n|<b>&%", "8/255", "9999-12-31")
JUNK = (*NUMBERS, *TEXTS, [], [1], ["a"], {}, {"name": 5}, {"teacher": []}, {"name": "../x", "every": "x"})


def places(value: Any, *path: str) -> list[tuple[str, ...]]:
    """Return the path of every value inside mappings."""
    if not isinstance(value, dict):
        return [path]
    return [path, *(place for key, item in value.items() for place in places(item, *path, key))]


def test_no_value_of_a_record_stops_tables_or_the_page(tmp_path: Path) -> None:
    """Replace random values by junk: the record is refused, or every board, entry and page can be made of it."""
    training = {"data": {"name": "cifar10", "eps": "8/255"}, "task": {"teacher": {"name": "resnet18"}}, "trainer": {}}
    path = save(honest(budget="own", training=training | {"selection": {"every": 1}}), tmp_path)
    content, random = json.loads(path.read_text()) | {"checksums": {}}, np.random.default_rng(0)
    everywhere, read = places(content)[1:], 0
    for _ in range(200):
        changed = json.loads(json.dumps(content))
        *parents, last = everywhere[random.integers(len(everywhere))]
        inner = changed
        for key in parents:
            inner = inner[key]
        inner[last] = JUNK[random.integers(len(JUNK))]
        path.write_text(json.dumps(changed))
        try:
            record = records.load(path)
        except UserError:
            continue
        read += 1
        for board in leaderboards([record]):
            board.table(), board.data()
        runs_table([record])
        runs_data([record], tmp_path)
        write_model_info([record], tmp_path / "model_info")
    assert 30 < read < 150
    assert {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*.json")} == {"honest.json", "model_info"}
