"""A verification evaluates a random part of a record again: honest flags agree, edited ones are found."""

import dataclasses
import json
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from dkl import records
from dkl.cli import main
from dkl.errors import UserError
from dkl.evaluation import verification
from dkl.evaluation.verification import verify
from dkl.interruption import Interrupted
from dkl.records.sampling_bound import most_in_population
from dkl.records.verification import load_verification
from tests.evaluation.common import trained


@pytest.mark.parametrize(("population", "drawn"), [(1, 1), (10, 3), (50, 50), (60, 20), (400, 120)])
def test_the_bound_is_the_exact_one_of_the_hypergeometric_distribution(population: int, drawn: int) -> None:
    for found in range(0, drawn + 1, max(1, drawn // 7)):
        totals = np.arange(found, population - (drawn - found) + 1)
        likely = totals[hypergeom.cdf(found, population, totals, drawn) > 0.05 + 1e-12]
        assert most_in_population(population, drawn, found) == likely.max()


def test_the_bound_that_is_quoted() -> None:
    assert most_in_population(10_000, 750, 0) / 10_000 == pytest.approx(0.004, abs=5e-4)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with foreign weights and their record, made in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(trained().state_dict(), "w.pt")
    network = ["model=timm:small_cnn", "arguments.width=8", "data=digits"]
    main(["evaluate", "checkpoint=w.pt", *network, "attacks=[pgd-2,cw-2]", "n=40", "threads=1", "eps=0.12"])
    return tmp_path / "results"


def record_of(results: Path) -> Path:
    (path,) = (results / "records").glob("*.json")
    return path


def test_an_honest_record_is_verified(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record_of(results)
    main(["verify", str(path), "checkpoint=w.pt", "n=40", "threads=1"])
    assert "verified: 40 of 40 images checked, 0 differ: at most 0.0 %" in capsys.readouterr().err
    record = records.load(path)
    found = load_verification(record, path.parent)
    assert found
    assert (found.checked, found.differ, found.lost) == (40, 0, 0)
    # A record that is evaluated again, or changed, is another one.
    assert load_verification(dataclasses.replace(record, checksums={}), path.parent) is None
    assert records.load_all(path.parent)[0] == [record]


def test_an_interrupted_verification_continues(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (record_of(results), ["checkpoint=w.pt", "threads=1"])
    attack = "dkl.evaluation.robustness.attack_loop.AttackLoop._attack_batch"
    with monkeypatch.context() as patch:
        patch.setattr(verification, "save_verification", Mock(side_effect=Interrupted(signal.SIGINT)))
        with pytest.raises(Interrupted):
            verify(*arguments, checked=40)
    assert list(results.glob("runs/evaluations/*/*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(attack, Mock(side_effect=AssertionError))
        assert verify(*arguments, checked=40).agrees
    assert not list(results.glob("runs/evaluations/*/*.npz"))


def test_invented_flags_are_found(results: Path) -> None:
    path = record_of(results)
    record, flags = records.load(path), records.load_flags(path)
    last = dict.fromkeys(record.attacks, flags["clean"])
    claimed = float(flags["clean"].mean())
    per_attack = {name: dataclasses.replace(result, robust=claimed) for name, result in record.per_attack.items()}
    records.save(dataclasses.replace(record, robust=claimed, per_attack=per_attack), flags | last, path.parent)
    found = verify(path, ["checkpoint=w.pt", "threads=1"], checked=20)
    fooled = flags["clean"] & ~flags["cw-2"]
    assert fooled.mean() > 0.2
    assert found.checked == 20
    assert not found.agrees
    assert found.lost > 0


def test_other_weights_networks_and_images_are_refused(results: Path) -> None:
    path = record_of(results)
    torch.save({key: value + 1 for key, value in trained().state_dict().items()}, "other.pt")
    with pytest.raises(UserError, match=r"other\.pt holds other weights"):
        verify(path, ["checkpoint=other.pt"])
    with pytest.raises(UserError, match="of another network, or of one with another normalization"):
        verify(path, ["checkpoint=w.pt", "model=timm:small_cnn", "arguments.width=8", "mean=[0.5]", "std=[1.0]"])
    content = json.loads(path.read_text())
    content["data_sha256"] = "0" * 64
    del content["checksums"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="digits has other test images"):
        verify(path, ["checkpoint=w.pt"])


def test_a_record_cannot_name_code(results: Path) -> None:
    path = record_of(results)
    content = json.loads(path.read_text())
    content["model"] = {"_target_": "os.system", "command": "touch executed"}
    del content["checksums"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="names no network that can be built safely"):
        verify(path, ["checkpoint=w.pt"])
    assert not Path("executed").exists()
