"""Every field has its type, range and default; impossible combinations are refused."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dkl import records
from dkl.records import Record
from dkl.threat import AUTOATTACK
from tests.factories import make_flags
from tests.records.common import Make, change, refused


@pytest.mark.parametrize("schema", [0, 1, 99])
def test_another_schema_is_refused(saved: Path, schema: int) -> None:
    assert f"schema is {schema}, it should be 2" in refused(change(saved, schema=schema))


NEWER = {
    **{"weights": "last", "synthetic": None, "top5": None, "shots": None, "best": None, "best_epoch": None},
    **{"step_seconds": None, "training_seconds": None, "partial": False, "teacher": None, "search": {}},
}
"""Optional fields and their defaults."""

OPTIONAL = {
    *(
        "bound",
        "segmented",
        "protocol",
        "checksums",
        "few_labels",
        "git_commit",
        "model",
        "warnings",
        "schema",
        "corruptions",
        "tests",
    ),
    *NEWER,
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Record)])
def test_a_missing_field_is_named(saved: Path, name: str) -> None:
    content = json.loads(saved.read_text()) | {"checksums": {}}
    del content[name]
    saved.write_text(json.dumps(content))
    if name in OPTIONAL:
        assert records.load(saved).id == content["id"]
    elif name == "training":  # weights trained elsewhere have none, but this record has a seed
        assert "budget is mini, but it was trained with budget None" in refused(saved)
    else:
        assert f"{name} is missing" in refused(saved)


def test_optional_fields_have_defaults(make_record: Make, tmp_path: Path) -> None:
    record = make_record(
        weights="average at epoch 200",
        synthetic="cifar10/1m.npz, 70 % of every batch",
        top5=0.9,
        shots={"many": 0.5, "medium": 0.25},
        best=0.8,
        best_epoch=150,
        step_seconds=0.5,
        training_seconds=60.0,
        partial=True,
        teacher="f" * 64,
        search={"channels_last": True},
    )
    path = records.save(record, make_flags(record), tmp_path)
    assert records.load(path) == record
    content = json.loads(path.read_text()) | {"checksums": {}}
    assert all(content.pop(name) != value for name, value in NEWER.items())
    path.write_text(json.dumps(content))
    flags = records.load_flags(path)
    np.savez(path.with_suffix(".npz"), **{name: values for name, values in flags.items() if name != "top5"})
    assert {name: getattr(records.load(path), name) for name in NEWER} == NEWER


def test_an_unknown_field_is_named(saved: Path) -> None:
    assert "there is no field robsut: did you mean robust or best? Choose one of additional_data, " in refused(
        change(saved, robsut=0.3)
    )
    result = {"robust": 0.25, "seconds": 1.0, "note": "x"}
    message = refused(change(saved, per_attack=dict.fromkeys(AUTOATTACK, result)))
    assert "there is no field per_attack.apgd-ce.note: choose one of robust, seconds" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "0"),
        ("seed", True),
        ("eps", "8/255"),
        ("n", 1000.0),
        ("clean", "0.75"),
        ("attacks", "apgd-ce"),
        ("additional_data", 1),
        ("versions", {"torch": 2}),
        ("per_attack", {"apgd-ce": {"robust": "half", "seconds": 1.0}}),
        ("synthetic", ["1m.npz"]),
        ("shots", {"many": "half"}),
        ("schema", "1"),
    ],
)
def test_a_wrong_type_is_refused(saved: Path, name: str, value: Any) -> None:
    assert name in refused(change(saved, **{name: value}))


FRACTION = "equal to [01]"

IMPOSSIBLE = [
    ({"clean": 0.2}, "robust is 0.25, it must not exceed clean"),
    ({"robust": -0.01}, FRACTION),
    ({"clean": math.nan}, "clean is nan, it should be a finite number"),
    ({"per_attack": {name: {"robust": 1.5, "seconds": 1.0} for name in AUTOATTACK}}, FRACTION),
    ({"per_attack": {"apgd-ce": {"robust": 0.5, "seconds": 1.0}}}, "disagree"),
    ({"attacks": [], "per_attack": {}}, "disagree"),
    ({"robust": None}, "disagree"),
    ({"top5": 0.5}, "top5 is 0.5, it must not be below clean"),
    ({"best": 0.5}, "best and best_epoch go together"),
    ({"shots": {"lots": 0.5}}, "'lots' is unknown: choose one of many, medium, few"),
    ({"step_seconds": 0.0}, "step_seconds is 0.0, it should be greater than 0"),
    ({"step_seconds": math.inf}, "step_seconds is inf"),
    ({"n": 0}, "n is 0"),
    ({"norm": "linf"}, r"norm: 'linf' is unknown: did you mean Linf\? Choose one of Linf, L2"),
    ({"method": "IKL\x1b[2J"}, r"method holds control characters: IKL\\x1b\[2J"),
    ({"hardware": {"name": [{"a\0": 1}]}}, r"hardware holds control characters: a\\x00"),
    ({"warnings": ["\u202eAT-LKI"]}, r"warnings holds control characters: \\u202e"),
    ({"budget": "huge"}, "budget: 'huge' is unknown: choose one of own, paper, mini, smoke"),
]


@pytest.mark.parametrize(("overrides", "match"), IMPOSSIBLE)
def test_an_impossible_record_is_neither_made_nor_loaded(
    make_record: Make, saved: Path, overrides: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        dataclasses.replace(make_record(), **overrides)
    assert re.search(match, refused(change(saved, **overrides)))


@pytest.mark.parametrize("left_out", [None, *AUTOATTACK])
def test_only_all_four_attacks_are_autoattack(make_record: Make, left_out: str | None) -> None:
    attacks = [name for name in AUTOATTACK if name != left_out]
    assert make_record(attacks=attacks).is_autoattack == (left_out is None)
    assert [make_record(attacks=names).accuracy_only for names in (attacks, [])] == [False, True]
