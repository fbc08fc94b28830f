"""Robust accuracy on held-out images equals an attack on the kept weights, and the best epoch is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from dkl.assembly import assemble, build_model, load_data, train
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.storage import checkpoint
from dkl.training.state import RunState, objective, write_metrics
from tests.training.common import TINY, assert_equal, comparable, make_config

SELECTED = ("selection.holdout=20", "selection.every=2", "selection.attack=pgd-2", "optimizer.lr=0.2")
SAVE = RunState.save


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def robust_accuracy(state: dict[str, torch.Tensor], seed: int = 0) -> float:
    """PGD-2 of eps/4 at eps 0.1 from the noise of ``seed``, written out, on the 20 held-out images."""
    cfg = compose_config("train", list(TINY))
    images, _ = load_data(cfg.data)
    _, held = images.holdout(20)
    model, x, eps = build_model(cfg.model).eval(), held.images.float() / 255, 0.1
    model.load_state_dict(state)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    adversarial = (x + eps * (2 * noise - 1)).clamp(0, 1)
    for _ in range(2):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(adversarial), held.labels), adversarial)
        adversarial = adversarial.detach() + eps / 4 * gradient.sign()
        adversarial = torch.max(torch.min(adversarial, x + eps), x - eps).clamp(0, 1)
    return (model(adversarial).argmax(1) == held.labels).float().mean().item()


@pytest.mark.parametrize("balanced", [True, False])
def test_balanced_or_first_images_are_held_out(balanced: bool, tmp_path: Path) -> None:
    chosen = ("data.train_size=null", "selection.holdout=200", f"selection.balanced={balanced}")
    cfg = make_config(tmp_path, *SELECTED, *chosen)
    held, images = assemble(cfg).held_out, load_data(cfg.data)[0]
    assert held is not None
    assert torch.equal(held.labels, images.labels[:200]) != balanced
    assert bool((held.labels.bincount(minlength=10) == 20).all()) == balanced


def stop_after_best(run: RunState, path: Path) -> None:
    if path.with_name("best.pt").exists():
        raise RuntimeError("stopped")
    SAVE(run, path)


def test_the_best_epoch_is_kept_and_named(tmp_path: Path) -> None:
    folder = train(make_config(tmp_path, *SELECTED, epochs=5))
    rows = {row["epoch"]: row for row in read_rows(folder)}
    assert [epoch for epoch, row in rows.items() if "robust_accuracy" in row] == [2, 4, 5]
    best, last = checkpoint.read(folder / "best.pt"), checkpoint.read(folder / "checkpoint.pt")
    assert best["accuracy"] == max(row.get("robust_accuracy", 0) for row in rows.values())
    assert rows[best["epoch"]]["robust_accuracy"] == best["accuracy"]
    assert (best["weights"], best["attack"]) == ("last", "pgd-2, linf 0.1")
    assert robust_accuracy(best["model"]) == pytest.approx(best["accuracy"])
    assert robust_accuracy(last["model"]) == pytest.approx(rows[5]["robust_accuracy"])


def test_selection_measures_the_average_if_there_is_one(tmp_path: Path) -> None:
    folder = train(make_config(tmp_path, *SELECTED, "averaging=epoch_ema", epochs=2))
    best = checkpoint.read(folder / "best.pt")
    assert best["weights"] == "average"
    average = checkpoint.read(folder / "checkpoint.pt")["average"]
    assert all(torch.equal(value, average[name]) for name, value in best["model"].items())
    assert robust_accuracy(best["model"]) == pytest.approx(best["accuracy"])


def test_a_resumed_run_keeps_the_best_of_its_own_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = 4
    straight = train(make_config(tmp_path / "straight", *SELECTED, epochs=epochs))
    cfg = make_config(tmp_path / "broken", *SELECTED, epochs=epochs)
    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", stop_after_best)
        with pytest.raises(RuntimeError, match="stopped"):
            train(cfg)
    (folder,) = (tmp_path / "broken" / "runs").iterdir()  # killed between best.pt and checkpoint.pt
    best = checkpoint.read(folder / "best.pt")
    assert best["epoch"] == 2

    checkpoint.save(folder / "best.pt", best | {"config": best["config"] | {"seed": 5}})
    with pytest.raises(UserError, match=r"best\.pt was trained with seed=5, not 0"):
        train(cfg)
    checkpoint.save(folder / "best.pt", best)
    assert_equal(comparable(train(cfg)), comparable(straight))


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["selection.every=1"], "go together"),
        (["selection.holdout=10"], "go together"),
        (["selection.holdout=10", "selection.every=1", "selection.attack=square"], "pgd-K or cw-K"),
        (["evaluation.weights=best"], "selection.holdout"),
        (["evaluation.weights=average"], "averaging=epoch_ema"),
        (["evaluation.weights=first"], "last, average or best"),
        (["selection.holdout=10", "selection.every=1", "selection.eps=8"], "8/255"),
        (["selection.holdout=10", "selection.every=1", "selection.norm=l2"], r"selection\.norm=linf"),
        (["evaluation.norm=l2", "evaluation.eps=1"], r"evaluation\.norm=linf"),
        (
            ["selection.holdout=10", "selection.every=1", "averaging=epoch_ema", "averaging.buffers=estimate"],
            "copy or average",
        ),
    ],
)
def test_mistakes_say_how_to_fix_them(tmp_path: Path, overrides: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        train(make_config(tmp_path, *overrides))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"test_accuracy": 0.1}, 0.1),
        ({"test_accuracy": 0.1, "average_test_accuracy": 0.2}, 0.2),
        ({"test_accuracy": 0.1, "test_miou": 0.3}, 0.3),
        ({"test_accuracy": 0.1, "test_miou": 0.3, "average_test_miou": 0.4, "average_test_accuracy": 0.2}, 0.4),
        ({"test_accuracy": 0.1, "average_test_accuracy": 0.2, "best_robust_accuracy": 0.5}, 0.5),
        ({"loss": 1.0}, None),
    ],
)
def test_the_objective_is_of_the_last_epoch(last: dict[str, float], expected: float | None, tmp_path: Path) -> None:
    first = {"epoch": 1, "test_accuracy": 0.9, "average_test_accuracy": 0.9}
    write_metrics([first, {"epoch": 2, **last}], tmp_path)
    assert objective(tmp_path) == expected
