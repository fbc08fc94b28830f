"""Bounded AutoAttack: its interval holds the standard suite's accuracy, which can continue from it."""

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import Perturb, autoattack, frozen_eval, make_attack
from dkl.attacks.autoattack import bounded
from dkl.attacks.autoattack.attack_loop import AttackLoop, AttackProgress, placed, places
from dkl.attacks.autoattack.bounded import attack_sample
from dkl.cli import main
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.evaluation import evaluate
from dkl.records import load, load_flags
from dkl.sampling_bound import count_interval
from dkl.threat import AUTOATTACK, SUITES
from tests.evaluation.common import evaluate_run, on_the_cpu, shorten, tiny_run


def finished(*args: object, **kwargs: object) -> None:
    raise AssertionError("an attack that is finished was run again")


def in_and_out(pixels_that_fall: dict[str, set[int]], seen: dict[str, list[int]]) -> dict[str, Perturb]:
    """Attacks that fool the images with given first pixels and note which images they see."""

    def perturb(name: str, x: Tensor) -> Tensor:
        numbers = (x[:, 0, 0, 0] * 1000).round().int().tolist()
        seen[name] += numbers
        falls = torch.tensor([number in pixels_that_fall[name] for number in numbers])
        return torch.where(falls.view(-1, 1, 1, 1), torch.ones_like(x), x)

    attacks = {name: partial(lambda name, x, y, **place: perturb(name, x), name) for name in ("fab-t", "square")}
    attacks["fab-t"].draws, attacks["square"].draws = "none", "place"
    return attacks


class WhiteIsFooled(nn.Module):
    """Class 0, unless the image is white."""

    def forward(self, x: Tensor) -> Tensor:
        white = (x.flatten(1).amin(1) == 1).float()
        return torch.stack([1 - white, white], 1)


@torch.no_grad()
@pytest.mark.parametrize(("falls", "width", "enough"), [(0, 20, True), (1, 20, True), (250, 20, True), (3, 0, False)])
def test_sample_grows_until_the_interval_is_narrow(falls: int, width: int, enough: bool, tmp_path: Path) -> None:
    count = 400
    images = (torch.arange(count) / 1000).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    labels = torch.zeros(count, dtype=torch.long)
    fall = np.random.default_rng(0).permutation(count)[:falls]
    seen: dict[str, list[int]] = {"fab-t": [], "square": []}
    attacks = in_and_out({"fab-t": set(fall[::2].tolist()), "square": set(fall[1::2].tolist())}, seen)
    before = np.ones(count, dtype=np.bool_)

    loop = AttackLoop(on_the_cpu(WhiteIsFooled(), images, labels, batch_size=25, folder=tmp_path), {})
    result, found = attack_sample(loop, attacks, before, width=width, seed=1, num_classes=2)
    drawn, fallen = int(result.sampled.sum()), int((before & ~result.after["square"]).sum())
    assert found == enough
    assert result.interval.low <= falls <= result.interval.high
    assert result.interval == count_interval(count, drawn, fallen)
    assert drawn < count
    assert len(seen["fab-t"]) == len(set(seen["fab-t"])) == drawn, "an image was attacked twice"
    assert fallen or falls <= 1 or not enough


@torch.no_grad()
@pytest.mark.parametrize(
    ("overhead", "state", "sampled"),
    [
        (0, (), True),
        (60, (), True),
        (400, (), False),  # a sample of 101 saves the time of 299 images, and may lose that of another pass
        (400, ("sample-fab-t",), True),  # begun before an interruption
        (0, ("fab-t",), False),
    ],
)
def test_a_sample_is_attacked_if_it_saves_more_time_than_it_may_lose(
    overhead: int,
    state: tuple[str, ...],
    sampled: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bounded, "pass_seconds", lambda model, x: overhead + len(x))
    images, labels = torch.zeros(400, 1, 2, 2), torch.zeros(400, dtype=torch.long)
    seen: dict[str, list[int]] = {"fab-t": [], "square": []}
    attacks = in_and_out({"fab-t": set(), "square": set()}, seen)
    before = np.ones(400, dtype=np.bool_)
    begun = AttackProgress.begin(before, 5)
    begun.seconds[0] = 1
    task = on_the_cpu(WhiteIsFooled(), images, labels, batch_size=100, together=400)
    loop = AttackLoop(task, dict.fromkeys(state, begun))
    _, enough = attack_sample(loop, attacks, before, width=10, seed=1, num_classes=2)
    assert enough == sampled == bool(seen["square"])
    assert ("saves no time: fab-t and square attack every image" in capsys.readouterr().err) == (not sampled)


def test_places_are_those_of_the_cut_batches() -> None:
    correct = np.array([True, False, True, True, True, False, True])
    place, length = places(correct, 2)
    assert place[correct].tolist() == [0, 1, 0, 1, 0]
    assert length[correct].tolist() == [2, 2, 2, 2, 1]


@pytest.mark.slow
def test_standard_continues_from_bounded_with_the_flags_of_standard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, steps=6, queries=40)
    run = tiny_run(tmp_path / "run", "data.test_size=120")
    options = ("eps=0.03", "batch_size=16")
    alone, alone_flags = evaluate_run(run, tmp_path / "alone", "attacks=standard", *options)

    bounded, flags = evaluate_run(run, tmp_path / "both", "attacks=bounded", "tolerance=40", *options)
    assert bounded.attacks == list(SUITES["bounded"])
    assert not bounded.is_autoattack
    assert bounded.bound is not None
    assert alone.robust is not None
    assert bounded.bound.low <= alone.robust <= bounded.bound.high
    assert 0 < flags["sampled"].sum() < flags["apgd-t"].sum()
    (source,) = (tmp_path / "both" / "records").glob("*.json")
    for changed, message in (
        ({"bound": asdict(bounded.bound) | {"low": bounded.bound.high}}, "its sample gives"),
        ({"bound": None}, "bound belongs to the attacks"),
    ):
        text = json.dumps({**json.loads(source.read_text()), **changed, "checksums": {}})
        (tmp_path / source.name).write_text(text)
        shutil.copy(source.with_suffix(".npz"), tmp_path)
        with pytest.raises(UserError, match=message):
            load(tmp_path / source.name)

    monkeypatch.setattr(autoattack, "apgd_ce", finished)
    path = tmp_path / "both" / "records"
    main(["evaluate", f"run={run}", f"paths.results={tmp_path / 'both'}", "threads=1", "attacks=standard", *options])
    (standard,) = (file for file in path.glob("*.json") if load(file).is_autoattack)
    for name in AUTOATTACK:
        assert np.array_equal(load_flags(standard)[name], alone_flags[name]), name
    assert load(standard).robust == alone.robust


@pytest.mark.slow
def test_bounded_becomes_standard_if_the_tolerance_needs_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, steps=3, queries=10)
    run = tiny_run(tmp_path / "run", "logger=tensorboard")  # it reports the record that was written
    for _ in range(2):
        record, _ = evaluate_run(run, tmp_path, "attacks=bounded", "eps=0.03", "batch_size=16")
        assert record.attacks == list(AUTOATTACK)
        assert record.bound is None

    (standard,) = (tmp_path / "records").glob("*.json")
    standard.write_text("{}")  # a damaged record of the standard suite does not stand for a bounded one
    options = ["attacks=bounded", "eps=0.03", "batch_size=16", "tolerance=100", "threads=1"]
    path = evaluate(compose_config("evaluate", [f"run={run}", f"paths.results={tmp_path}", *options]))
    assert load(path).bound is not None


class Masked(nn.Module):
    """A linear network on images rounded to four gray levels: its gradient is zero, but Square needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear((x.flatten(1) * 3).round() / 3)
        return logits


@torch.no_grad()
def test_a_network_that_masks_gradients_gains_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Masked()
    images = torch.rand(300, 3, 4, 4)
    labels = model(images).argmax(1)
    shorter = {"fab-t": {"steps": 3}, "square": {"queries": 60}}
    options = {"norm": "linf", "eps": 0.2, "seed": 0, "num_classes": 5}
    attacks = {name: partial(make_attack(name, model, **options), **fewer) for name, fewer in shorter.items()}
    attacks["fab-t"].draws, attacks["square"].draws = "none", "place"  # a partial of a partial has no attributes
    before = np.ones(300, dtype=np.bool_)
    loop = AttackLoop(on_the_cpu(model, images, labels, batch_size=50, folder=tmp_path), {})
    with frozen_eval(model):
        result, _ = attack_sample(loop, attacks, before, width=60, seed=1, num_classes=5)
        square_of_all = placed(attacks["square"], before, 50).perturb(images, labels, torch.arange(300))
    falls = int((model(square_of_all).argmax(1) != labels).sum())
    assert falls > 100
    assert result.interval.low <= falls <= result.interval.high
