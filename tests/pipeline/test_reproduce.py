"""A small manifest end to end: rows are trained, attacked and tabulated, and never twice."""

import csv
import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dkl import records
from dkl.cli import main
from dkl.manifests import Request, plan
from dkl.reporting import figures
from dkl.reporting.figures.pictures import read

SMALL = ["trainer.epochs=2", "trainer.threads=1", "data.train_size=200", "data.test_size=16"]


METHODS = ["IKL-AT", "TRADES"]


def _draw_radii(draw: Callable[..., list[Path]], *arguments: object) -> list[Path]:
    """Draw one kind of figure only: each takes half a second."""
    *others, prefix = arguments
    assert prefix == ""
    return draw(*others, "radii")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_quickstart_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["reproduce", "experiment=quickstart", f"paths.results={tmp_path}", *SMALL]
    monkeypatch.setattr(figures, "draw_all", partial(_draw_radii, figures.draw_all))
    main([*arguments, "html=true"])
    shown = capsys.readouterr()
    found, problems = records.load_all(tmp_path / "records")
    assert not problems
    assert all(r.n == 16 and r.norm == "Linf" for r in found)
    radii = {method: sorted(r.eps for r in found if r.method == method and not r.is_autoattack) for method in METHODS}
    assert list(radii.values()) == 2 * [[0.05, 0.15, 0.2]]
    found = [record for record in found if record.is_autoattack]
    assert sorted(r.method for r in found) == METHODS
    assert all(r.eps == 0.1 for r in found)
    tables = {p.suffix: p.read_text() for p in (tmp_path / "tables").glob("digits-Linf-eps0.1-own.*")}
    assert set(tables) == {".md", ".csv", ".tex", ".html"}
    for record in found:
        assert all(record.method in text for text in tables.values())
        assert f"{100 * record.robust:.2f}" in tables[".md"]
        flags = records.load_flags(tmp_path / "records" / f"{record.id}.json")
        assert record.robust == flags["square"].mean()
        assert record.clean == flags["clean"].mean()
    rows = list(csv.DictReader(tables[".csv"].splitlines()))
    assert len(rows) == 2
    entries = [json.loads(p.read_text()) for p in (tmp_path / "model_info" / "digits" / "Linf").glob("*.json")]
    assert {e["clean_acc"] for e in entries} == {f"{100 * r.clean:.2f}" for r in found}
    assert "digits, Linf, eps = 0.1 " in shown.out
    assert "AutoAttack" in shown.out
    assert "pgd-20" not in shown.out
    assert f"Page with tables, curves, figures and attacked images: {tmp_path / 'index.html'}" in shown.err
    page = (tmp_path / "index.html").read_text()
    for board in ("digits-Linf-eps0.1-own", "digits-Linf-eps0.15-own", "radii-own-digits-Linf-pgd-20_not_AutoAttack"):
        assert f'id="{board}"' in page
    pictured = [read(path).about["method"] for path in (tmp_path / "figures" / "data").iterdir()]
    assert sorted(pictured) == METHODS

    before = contents(tmp_path)
    main(arguments)
    assert contents(tmp_path) == before


def test_dry_run_prints_commands_that_name_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = f"paths.results={tmp_path}"
    main(["reproduce", "experiment=quickstart", "row=IKL-AT", "seed=4", results, *SMALL, "dry_run=true"])
    shown = capsys.readouterr()
    assert not list(tmp_path.iterdir())
    train = next(line for line in shown.out.splitlines() if line.startswith("dkl train "))
    main(shlex.split(train)[1:])
    assert str(next((tmp_path / "runs").glob("digits-*"))) in shown.err


def test_data_with_few_classes_runs_through_autoattack(tmp_path: Path) -> None:
    for split, count in (("train", 80), ("test", 12)):
        label = np.arange(count) % 4
        image = (
            np.random.default_rng(count).integers(0, 60, (count, 8, 8, 1)) + 45 * label[:, None, None, None]
        ).astype("u1")
        np.savez(tmp_path / f"{split}.npz", image=image, label=label)
    data = ["data=npz", "data.num_classes=4", "data.shape=[1,8,8]", f"paths.data={tmp_path}"]
    results = f"paths.results={tmp_path}"
    main(["train", *data, results, "trainer.epochs=2", "trainer.threads=1"])
    run = next((tmp_path / "runs").glob("npz-*"))
    main(["evaluate", f"run={run}", results, f"paths.data={tmp_path}", "eps=0.01"])
    (record,) = records.load_all(tmp_path / "records")[0]
    assert record.is_autoattack
    assert record.warnings == []


def test_a_run_does_not_continue_on_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(seed: int) -> None:
        for split in ("train", "test"):
            image = np.random.default_rng(seed).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
            np.savez(tmp_path / f"{split}.npz", image=image, label=np.arange(40) % 5)

    arguments = ["train", "data=npz", "data.num_classes=5", "data.shape=[3,8,8]", f"paths.data={tmp_path}"]
    arguments += [f"paths.results={tmp_path}", "trainer.epochs=1", "trainer.threads=1"]
    write(0)
    main(arguments)
    write(1)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "other images" in capsys.readouterr().err


def test_a_budget_replaces_the_sizes_of_a_manifest() -> None:
    found = {budget: plan("cifar10-cpu", Request(budget=budget)) for budget in (None, "smoke")}
    assert any("trainer.epochs" in text for text in found[None][0].train)
    assert not any("trainer.epochs" in text or "train_size" in text for text in found["smoke"][0].train)
