"""Accuracy without attacks: top-1 and top-5 on any number of processes, per-shot accuracy, the best of all epochs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor, nn

from dkl import checkpoint
from dkl.assembly import load_data
from dkl.cli import main
from dkl.config import compose_config
from dkl.evaluation.outputs.long_tail import accuracy_per_shot
from dkl.evaluation.robustness import checks
from dkl.evaluation.robustness.attack_loop import run_attacks
from dkl.evaluation.robustness.progress import State, save
from dkl.evaluation.weights import best_epoch
from dkl.records import Record, load_all
from dkl.tasks.accuracy import top1, top5
from tests.evaluation.common import CPU, only_record, some_digits, tiny_run, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "trainer.epochs=2", "evaluation.attacks=none")


def evaluate(run: Path, results: Path, *overrides: str) -> tuple[Record, dict[str, NDArray[np.bool_]]]:
    main(["evaluate", f"run={run}", f"paths.results={results}", "threads=1", *overrides])
    return only_record(results)


@pytest.mark.parametrize("classes", [6, 10, 100])
def test_top_k_is_scikit_learns(classes: int) -> None:
    logits, labels = torch.randn(200, classes), torch.randint(classes, (200,))
    every = range(classes)
    for k, judge in ((1, top1), (5, top5)):
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=every)
        assert judge(logits, labels).double().mean().item() == pytest.approx(expected, abs=1e-12)


def test_what_is_right_at_the_first_guess_is_among_five_guesses() -> None:
    logits, labels = torch.zeros(100, 20), torch.arange(100) % 20
    assert bool((top1(logits, labels) <= top5(logits, labels)).all())
    assert top5(logits, labels).double().mean() < 0.35  # a network that tells nothing apart is not right


def looped(correct: NDArray[np.bool_], labels: Tensor, counts: list[int]) -> dict[str, float]:
    """Per-shot accuracy, written out."""
    groups: dict[str, list[float]] = {"many": [], "medium": [], "few": []}
    for label, count in enumerate(counts):
        hits = [bool(hit) for hit, truth in zip(correct, labels.tolist(), strict=True) if truth == label]
        if hits:
            name = "many" if count > 100 else "few" if count < 20 else "medium"
            groups[name].append(sum(hits) / len(hits))
    return {name: sum(found) / len(found) for name, found in groups.items() if found}


@pytest.mark.parametrize(
    "counts", [[500, 101, 100, 50, 20, 19, 5, 0], [300, 40, 30, 20, 90, 100, 60, 70], [9, 9, 9, 9, 9, 9, 9, 200]]
)
def test_shots_are_means_over_classes(counts: list[int]) -> None:
    labels = torch.randint(8, (300,))
    labels[labels == 3] = 4  # a class that is never tested, one that is tested twice as often
    correct = np.random.default_rng(0).random(300) < 0.3 + 0.08 * labels.numpy()
    found = accuracy_per_shot(correct, labels, torch.tensor(counts))
    expected = looped(correct, labels, counts)
    assert found == pytest.approx(expected)
    assert list(expected) == list(found or {})


@pytest.mark.parametrize("counts", [[5] * 4, [600] * 4, [101, 101, 100, 100], [400, 300, 200, 101]])
def test_no_shots_without_a_long_tail(counts: list[int]) -> None:
    assert accuracy_per_shot(np.ones(8, dtype=np.bool_), torch.arange(8) % 4, torch.tensor(counts)) is None


def test_the_best_epoch_is_the_first_of_the_highest_and_of_the_weights_evaluated() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "test_accuracy": 0.5},
        {"epoch": 2, "test_accuracy": 0.75, "average_test_accuracy": 0.25},
        {"epoch": 3, "test_accuracy": 0.25, "average_test_accuracy": 0.25},
        {"epoch": 4, "test_accuracy": 0.75, "average_test_accuracy": 0.5},
        {"epoch": 5, "test_accuracy": 0.625, "average_test_accuracy": 0.375},
    ]
    assert best_epoch(rows, averaged=False) == (0.75, 2)
    assert best_epoch(rows, averaged=True) == (0.5, 4)
    assert best_epoch(rows[:1], averaged=True) is best_epoch([], averaged=False) is None
    assert best_epoch([*rows, {"epoch": 6}], averaged=False) is None  # it may have been the best


def test_a_run_is_evaluated_without_attacks(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> list[str]:
        raise AssertionError("AutoAttack's checks ran")

    monkeypatch.setattr(checks, "model_warnings", never)
    monkeypatch.setattr(checks, "square_warnings", never)
    record, flags = evaluate(run, tmp_path)  # as the run's evaluation.attacks says
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
    assert {path.name for path in tables.iterdir()} == {
        f"digits-accuracy-own.{e}" for e in ("md", "csv", "tex", "html")
    }
    shown = (tables / "digits-accuracy-own.md").read_text()
    assert all(f"{100 * value:.2f}" in shown for value in (record.clean, record.top5, record.best))


def test_one_figure_beside_an_attack(run: Path, tmp_path: Path) -> None:
    """The figures on images as they are do not depend on whether something is attacked after them."""
    alone, _ = evaluate(run, tmp_path / "none", "attacks=none")
    attacked, flags = evaluate(run, tmp_path / "pgd", "attacks=[pgd-1]", "eps=0.1")
    assert (attacked.clean, attacked.top5, attacked.best) == (alone.clean, alone.top5, alone.best)
    assert set(flags) == {"clean", "top5", "pgd-1"}
    assert attacked.id != alone.id


def test_two_processes_find_what_one_finds(run: Path, tmp_path: Path) -> None:
    one, flags = evaluate(run, tmp_path / "one", "batch_size=10")
    two, others = evaluate(run, tmp_path / "two", "batch_size=10", "devices=2")
    assert two.hardware["processes"] == 2
    assert (one.id, one.clean, one.top5, one.shots) == (two.id, two.clean, two.top5, two.shots)
    assert flags.keys() == others.keys()
    assert all(np.array_equal(flags[name], others[name]) for name in flags)


@pytest.mark.parametrize("asked", ["eps=0.1", "norm=l2"])
def test_a_threat_model_without_attacks_is_refused(
    asked: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "attacks=none", asked])
    assert f"leave out {asked}" in capsys.readouterr().err


@pytest.fixture
def long_tailed(tmp_path: Path) -> list[str]:
    """Overrides for digits as .npz, of whose classes 0 to 2 many images are to train on, 3 to 6 some, 7 to 9 few."""
    train, test = load_data(compose_config("train", []).data)
    kept = {**dict.fromkeys(range(3), 120), **dict.fromkeys(range(3, 7), 50), **dict.fromkeys(range(7, 10), 6)}
    chosen = torch.cat([(train.labels == label).nonzero().squeeze(1)[:count] for label, count in kept.items()])
    for name, images, labels in (
        ("train", train.tensor()[chosen], train.labels[chosen]),
        ("test", test.tensor(), test.labels),
    ):
        np.savez(tmp_path / f"{name}.npz", image=images.permute(0, 2, 3, 1).numpy(), label=labels.numpy())
    source = [f"data.source.{split}={tmp_path / split}.npz" for split in ("train", "test")]
    return ["data=npz", "data.name=tailed", "data.num_classes=10", "data.shape=[1,8,8]", "data.eps=0.1", *source]


def test_a_long_tail_of_training_images_gives_shots(long_tailed: list[str], tmp_path: Path) -> None:
    sizes = ["data.train_size=null", "data.test_size=null", "trainer.epochs=2"]
    run = tiny_run(tmp_path, "model=small_cnn", *long_tailed, *sizes)
    record, flags = evaluate(run, tmp_path / "results", "attacks=none")
    labels = torch.from_numpy(np.load(tmp_path / "test.npz")["label"])
    assert record.n == len(labels)
    assert record.shots == pytest.approx(looped(flags["clean"], labels, [120] * 3 + [50] * 4 + [6] * 3))
    assert record.shots is not None
    assert record.shots.keys() == {"many", "medium", "few"}
    assert record.shots["many"] > record.shots["few"]


def test_five_classes_have_no_top5(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", image=images, label=np.arange(40) % 5)
    source = [f"data.source.{split}={tmp_path / split}.npz" for split in ("train", "test")]
    sizes = ["data.train_size=40", "data.test_size=40", "trainer.epochs=1", "model=small_cnn", "data.eps=0.1"]
    run = tiny_run(tmp_path, "data=npz", "data.num_classes=5", "data.shape=[1,8,8]", *source, *sizes)
    record, flags = evaluate(run, tmp_path / "results", "attacks=none")
    assert record.top5 is None
    assert flags.keys() == {"clean"}


class PowerCutError(Exception):
    """Stands for whatever stops an evaluation."""


def clean(folder: Path, model: nn.Module, fail: Callable[[], None] = lambda: None) -> State:
    """Top-1 and top-5 of 24 digits, in batches of 5; ``fail`` is called before each."""
    images, labels = some_digits(24)
    hook = model.register_forward_pre_hook(lambda module, inputs: fail())
    try:
        options = {"batch_size": 5, "device": CPU, "folder": folder, "top_five": True}
        return run_attacks(model, (images * 255).round().to(torch.uint8), labels, {}, **options)
    finally:
        hook.remove()


def test_stopped_it_goes_on_with_the_batches_that_are_left(tmp_path: Path) -> None:
    whole, passes = clean(tmp_path / "whole", trained()), []

    def power_cut() -> None:
        if len(passes) == 2:
            raise PowerCutError
        passes.append(1)

    with pytest.raises(PowerCutError):
        clean(tmp_path / "stopped", trained(), power_cut)
    resumed = clean(tmp_path / "stopped", trained(), lambda: passes.append(1))
    assert len(passes) == 5, "a batch was done twice, or not at all"
    assert list(whole) == list(resumed) == ["clean", "top5"]
    for name in whole:
        assert np.array_equal(resumed[name].flags, whole[name].flags)
    logits, labels = trained()(some_digits(24)[0]).detach(), some_digits(24)[1]
    for name, k in (("clean", 1), ("top5", 5)):
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(10))
        assert whole[name].flags.mean() == pytest.approx(expected)


def test_what_an_older_version_left_undone_is_done(tmp_path: Path) -> None:
    """An evaluation that was begun before top-5 was counted has done its clean images, and goes on all the same."""
    whole = clean(tmp_path / "whole", trained())
    (tmp_path / "old").mkdir()
    save({"clean": whole["clean"]}, tmp_path / "old" / "0.npz")
    assert np.array_equal(clean(tmp_path / "old", trained())["top5"].flags, whole["top5"].flags)


def test_runs_of_the_same_weights_have_a_record_each(tmp_path: Path) -> None:
    runs = [tiny_run(tmp_path, f"averaging={name}") for name in ("none", "ema")]  # the last weights are the same
    for run in runs:
        main(["evaluate", f"run={run}", f"paths.results={tmp_path}", "threads=1", "attacks=none", "weights=last"])
    found, _ = load_all(tmp_path / "records")
    assert len({record.checkpoint_sha256 for record in found}) == 1
    assert len({record.config_hash for record in found}) == len(found) == 2
