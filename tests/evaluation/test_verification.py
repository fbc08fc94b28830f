"""A verification evaluates a random part of a record again: honest flags agree, edited ones are found."""

import dataclasses
import json
import re
import signal
import zipfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom

from dkl import records
from dkl.cli import main
from dkl.errors import UserError
from dkl.evaluation import verification
from dkl.evaluation.verification import verify
from dkl.records.verification import load_verification
from dkl.runtime.interruption import Interrupted
from dkl.sampling_bound import fewest_without_hit, most_in_population
from tests.evaluation.common import trained


@pytest.mark.parametrize(("population", "drawn"), [(1, 1), (10, 3), (50, 50), (60, 20), (400, 120)])
def test_the_bound_is_the_exact_one_of_the_hypergeometric_distribution(population: int, drawn: int) -> None:
    for found in range(0, drawn + 1, max(1, drawn // 7)):
        totals = np.arange(found, population - (drawn - found) + 1)
        likely = totals[hypergeom.cdf(found, population, totals, drawn) > 0.05 + 1e-12]
        assert most_in_population(population, drawn, found) == likely.max()


def test_the_bound_that_is_quoted() -> None:
    assert most_in_population(10_000, 750, 0) / 10_000 == pytest.approx(0.004, abs=5e-4)
    assert most_in_population(50, 39, 0) == 1 < most_in_population(50, 38, 0), "of 50 batches 39 for 2 %"


@pytest.mark.parametrize(("population", "most"), [(1, 0), (40, 0), (60, 1), (400, 8), (400, 400)])
def test_the_fewest_images_that_are_enough(population: int, most: int) -> None:
    enough = [n for n in range(1, population + 1) if most_in_population(population, n, 0) <= most]
    assert fewest_without_hit(population, most) == enough[0]


def test_the_bound_holds_if_whole_batches_are_wrong() -> None:
    wrong = np.zeros(400, dtype=np.bool_)
    wrong[100:120] = wrong[200:220] = True  # two batches of twenty
    rng = np.random.default_rng(0)
    found = [int(wrong[rng.permutation(400)[:60]].sum()) for _ in range(2000)]
    bounds = {count: most_in_population(400, 60, count) for count in set(found)}
    assert np.mean([bounds[count] >= wrong.sum() for count in found]) >= 0.95


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with foreign weights and their record of 320 images, made in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(trained().state_dict(), "w.pt")
    network = ["model=timm:small_cnn", "arguments.width=8", "data=digits"]
    attacks = ["attacks=[pgd-2,cw-2]", "n=320", "batch_size=40", "eps=0.12"]
    main(["evaluate", "checkpoint=w.pt", *network, *attacks, "threads=1"])
    return tmp_path / "results"


def record_of(results: Path) -> Path:
    (path,) = (results / "records").glob("*.json")
    return path


def claim(path: Path, fooled: NDArray[np.bool_]) -> None:
    """Edit the record: images that were classified correctly before the attacks and are ``fooled`` stay so."""
    record, flags = records.load(path), records.load_flags(path)
    edited = flags | {name: flags[name] | (flags["clean"] & fooled) for name in record.attacks}
    results = {
        name: dataclasses.replace(result, robust=float(edited[name].mean()))
        for name, result in record.per_attack.items()
    }
    robust = results[record.attacks[-1]].robust
    records.save(dataclasses.replace(record, robust=robust, per_attack=results), edited, path.parent)


def test_an_honest_record_is_verified_though_draws_depend_on_the_batch(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The record lies in somebody else's folder; what was found is written to ours.
    path = record_of(results.rename("friend"))
    main(["verify", str(path), "checkpoint=w.pt", "n=160", "threads=1", "seed=1"])
    assert "verified: 160 of 320 images checked, 0 differ: at most 1.2 %" in capsys.readouterr().err
    record = records.load(path)
    found = load_verification(record, results)
    assert found
    assert load_verification(record, Path("friend")) is None
    assert (found.checked, found.differ, found.lost) == (160, 0, 0)
    assert found.other_draws > 0
    # A record that is evaluated again, or changed, is another one.
    assert load_verification(dataclasses.replace(record, checksums={}), results) is None
    assert records.load_all(path.parent)[0] == [record]


def test_too_few_images_are_no_finding(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(record_of(results)), "checkpoint=w.pt", "threads=1", "n=20"])
    assert stop.value.code == 2
    assert not list(results.glob("**/verifications/*"))
    asked = re.search(
        r"n=20 images are too few to verify: without a difference they bound 13\.\d %, but 2 % is asked; use n=(\d+)",
        capsys.readouterr().err,
    )
    assert asked
    enough = verify(record_of(results), ["checkpoint=w.pt", "threads=1"], checked=int(asked[1]))
    assert enough.verdict.startswith("verified: ")


def test_an_interrupted_verification_continues(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (record_of(results), ["checkpoint=w.pt", "threads=1"])
    attack = "dkl.attacks.autoattack.attack_loop.AttackLoop._attack_batches"
    with monkeypatch.context() as patch:
        patch.setattr(verification, "save_verification", Mock(side_effect=Interrupted(signal.SIGINT)))
        with pytest.raises(Interrupted):
            verify(*arguments, checked=160)
    (seed,) = results.glob("runs/evaluations/*/seed.txt")
    drawn = int(seed.read_text())
    assert list(results.glob("runs/evaluations/*/*/*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(attack, Mock(side_effect=AssertionError))
        found = verify(*arguments, checked=160)
    assert found.agrees
    assert found.seed == drawn
    assert not list(results.glob("runs/evaluations/*/*/*.npz"))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_invented_flags_are_found(results: Path, share: float) -> None:
    path = record_of(results)
    claim(path, np.arange(320) < 320 * share)
    found = verify(path, ["checkpoint=w.pt", "threads=1"], checked=160, seed=1)
    assert found.verdict.startswith("NOT verified: 160 of 320")
    assert found.differ >= found.lost > 0


def test_other_weights_networks_and_images_are_refused(results: Path) -> None:
    path = record_of(results)
    torch.save({key: value + 1 for key, value in trained().state_dict().items()}, "other.pt")
    with pytest.raises(UserError, match=r"other\.pt holds other weights"):
        verify(path, ["checkpoint=other.pt"])
    with zipfile.ZipFile("net.ts", "w") as archive:
        archive.writestr("net/constants.pkl", "")
    with pytest.raises(UserError, match=r"is a program .* trust=true"):
        verify(path, ["checkpoint=net.ts"])
    with pytest.raises(UserError, match="of another network or normalization: small_cnn"):
        verify(path, ["checkpoint=net.ts", "trust=true"])
    with pytest.raises(UserError, match="of another network or normalization: small_cnn"):
        verify(path, ["checkpoint=w.pt", "model=timm:small_cnn", "arguments.width=8", "mean=[0.5]", "std=[1.0]"])
    content = json.loads(path.read_text())
    content["data_sha256"] = "0" * 64
    del content["checksums"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="digits has other test images"):
        verify(path, ["checkpoint=w.pt"])


CODE = {"_target_": "os.system", "command": "touch executed"}
OURS = {"_target_": "dkl.models.create_model", "name": "small_cnn", "num_classes": 10}


@pytest.mark.parametrize("model", [CODE, {**OURS, "act": [{"of": CODE}]}, {**OURS, "act": {"of": "${oc.env:HOME}"}}])
def test_a_record_cannot_name_code(model: dict[str, object], results: Path) -> None:
    path = record_of(results)
    content = json.loads(path.read_text())
    content["model"] = model
    del content["checksums"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="names no network that can be built safely"):
        verify(path, ["checkpoint=w.pt"])
    assert not Path("executed").exists()
