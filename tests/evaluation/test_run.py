"""``dkl evaluate`` of a run: accuracy without attacks, one record per threat model, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dkl import records
from dkl.attacks import named_attack
from dkl.attacks.autoattack import checks, classifier
from dkl.attacks.autoattack.task import AttackTask
from dkl.cli import main
from dkl.data import digits
from dkl.evaluation import run as evaluation
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.models import create_model, load_checkpoint
from dkl.storage import checkpoint
from tests.evaluation.common import evaluate_run, tiny_run, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "trainer.epochs=2", "evaluation.attacks=none")


def test_a_run_is_evaluated_without_attacks(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> list[str]:
        raise AssertionError("AutoAttack's checks ran")

    monkeypatch.setattr(checks, "check_model", never)
    monkeypatch.setattr(checks, "final_warnings", never)
    record, flags = evaluate_run(run, tmp_path)  # the run's configuration has evaluation.attacks=none
    assert (record.attacks, record.robust, record.per_attack) == ([], None, {})
    assert (record.eps, record.eps_text, record.n, record.weights) == (0, "0", 40, "last epoch 2")
    assert flags.keys() == {"clean", "top5"}
    assert record.clean == flags["clean"].mean()
    assert record.top5 == flags["top5"].mean()
    assert record.clean < record.top5
    assert record.seconds > 0
    assert record.shots is None
    rows = checkpoint.read(run / "checkpoint.pt")["rows"]
    assert record.clean == pytest.approx(rows[-1]["test_accuracy"])
    assert record.best == max(row["test_accuracy"] for row in rows)
    assert record.best_epoch is not None
    assert rows[record.best_epoch - 1]["test_accuracy"] == record.best
    main(["tables", f"results={tmp_path}"])
    tables = tmp_path / "tables"
    formats = ("md", "csv", "tex", "html")
    assert {path.name for path in tables.iterdir()} == {f"digits-accuracy-own.{suffix}" for suffix in formats}
    shown = (tables / "digits-accuracy-own.md").read_text()
    assert all(f"{100 * value:.2f}" in shown for value in (record.clean, record.top5, record.best))


def test_one_switch_searches_faster(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("attacks=[pgd-1]", "eps=0.1", "n=10", "fast=true")
    assert evaluate_run(run, tmp_path / "a", *words)[0].search == {"channels_last": True, "precision": "bf16"}
    assert "at most about 1 s for n=10 at " in capsys.readouterr().err
    assert evaluate_run(run, tmp_path / "b", *words, "precision=float32")[0].search == {"channels_last": True}
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={run}", "fast=true"])
    assert "leave out fast=true" in capsys.readouterr().err


def test_the_cost_is_that_of_images_that_resist(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 13.0])  # the second pass takes 3 s
    monkeypatch.setattr(classifier.time, "perf_counter", lambda: next(clock))
    task = AttackTask(
        model=trained(),
        images=torch.zeros(10, 1, 8, 8),
        labels=torch.zeros(10, dtype=torch.int64),
        num_classes=10,
        protocol=EvaluationProtocol(["pgd-20"], "linf", 0.1, "0.1", None, 5, 0),
        device=torch.device("cpu"),
    )
    # 20 passes, 20 gradients, 2 batches
    assert "at most about 4 min for n=10 at 3 s per pass" in evaluation._cost(task)


def test_a_record_for_every_radius_and_none_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"run={run}", f"paths.results={tmp_path}", "attacks=[cw-3]", "threads=1"]
    main(["evaluate", *common, "eps=2/255"])
    (first,) = (tmp_path / "records").glob("*.json")
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    main(["evaluate", "-m", *common, "eps=2/255,8/255,0.2"])
    assert capsys.readouterr().err.count("already evaluated") == 1
    assert first.stat().st_mtime_ns == before
    found, problems = records.load_all(tmp_path / "records")
    assert not problems
    by_radius = {record.eps_text: record for record in found}
    assert {text: record.eps for text, record in by_radius.items()} == {"2/255": 2 / 255, "8/255": 8 / 255, "0.2": 0.2}
    assert len({record.clean for record in found}) == len({record.checkpoint_sha256 for record in found}) == 1
    assert by_radius["2/255"].robust > by_radius["0.2"].robust


def test_a_record_that_cannot_be_used_is_made_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["attacks=[pgd-1]", "eps=0.1", "n=20"]
    record, _ = evaluate_run(run, tmp_path, *options)
    (tmp_path / "records" / f"{record.id}.json").write_text("{}")
    again, _ = evaluate_run(run, tmp_path, *options)
    assert "is not a usable record" in capsys.readouterr().err
    assert (again.id, again.robust) == (record.id, record.robust)


def test_one_attack_alone_sees_all_correct_images(run: Path, tmp_path: Path) -> None:
    common = ["eps=0.04", "batch_size=15", "seed=5"]
    both, together = evaluate_run(run, tmp_path / "both", *common, "attacks=[pgd-10,cw-20]")
    _, pgd = evaluate_run(run, tmp_path / "pgd", *common, "attacks=[pgd-10]")
    record, flags = evaluate_run(run, tmp_path / "cw", *common, "attacks=[cw-20]")
    assert record.attacks == ["cw-20"]
    assert record.per_attack.keys() == {"cw-20"}
    assert not record.is_autoattack

    model = create_model("small_cnn", 10, in_chans=1)
    load_checkpoint(model, run / "checkpoint.pt")
    test = digits()[1].balanced(40)
    images, labels = test.images.float() / 255, test.labels
    perturb = named_attack(model.eval(), "cw-20", norm="linf", eps=0.04, seed=5)
    with torch.no_grad():
        clean = (model(images).argmax(1) == labels).nonzero().squeeze(1)
        robust = torch.zeros(40, dtype=torch.bool)
        for batch in clean.split(15):
            robust[batch] = model(perturb(images[batch], labels[batch])).argmax(1) == labels[batch]
    assert np.array_equal(flags["cw-20"], robust.numpy())
    assert record.robust == record.per_attack["cw-20"].robust == robust.double().mean()
    assert record.clean == len(clean) / 40
    assert both.robust == min(result.robust for result in both.per_attack.values()) == together["cw-20"].mean()
    assert both.robust <= min(record.robust, pgd["pgd-10"].mean())


def test_five_classes_have_no_top5(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", image=images, label=np.arange(40) % 5)
    files = [f"data.source.{split}={tmp_path / split}.npz" for split in ("train", "test")]
    sizes = ["data.train_size=40", "data.test_size=40", "trainer.epochs=1", "model=small_cnn", "data.eps=0.1"]
    run = tiny_run(tmp_path, "data=npz", "data.num_classes=5", "data.shape=[1,8,8]", *files, *sizes)
    record, flags = evaluate_run(run, tmp_path / "results", "attacks=none")
    assert record.top5 is None
    assert flags.keys() == {"clean"}


def test_runs_with_equal_weights_have_a_record_each(tmp_path: Path) -> None:
    for averaging in ("none", "ema"):  # the last weights are the same
        run = tiny_run(tmp_path, "trainer.epochs=1", f"averaging={averaging}")
        main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "threads=1", "attacks=none", "weights=last"])
    found, _ = records.load_all(tmp_path / "records")
    assert len({record.checkpoint_sha256 for record in found}) == 1
    assert len({record.config_hash for record in found}) == len(found) == 2


def test_an_unfinished_or_damaged_run_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    content = checkpoint.read(run / "checkpoint.pt")
    changes: list[tuple[dict[str, object], str]] = [
        ({"epoch": 1, "rows": content["rows"][:1]}, "has trained only 1 of 2 epochs"),
        ({}, "not a checkpoint of dkl train"),
        ({"epoch": "two"}, "damaged: epoch is 'two'"),
        ({"epoch": 2, "rows": 5}, "damaged: rows is 5"),
        ({"epoch": 2, "rows": content["rows"][:1]}, "has the metrics of 1 epochs"),
        ({"epoch": 99}, "of epoch 99 and has the metrics of 2 epochs, but its run has 2 epochs"),
    ]
    for change, message in changes:
        rest = {key: value for key, value in content.items() if key != "epoch"}
        checkpoint.save(folder / "checkpoint.pt", {**rest, **change})
        with pytest.raises(SystemExit):
            main(["evaluate", f"run={folder}", f"paths.results={tmp_path}"])
        assert message in capsys.readouterr().err
