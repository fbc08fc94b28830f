"""Running averages equal the official average over files, computed by a plain loop; buffers follow the rule."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.assembly import load_data, train
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.storage import checkpoint
from dkl.training.averaging import Average, Averaging
from tests.training.common import make_config


def make_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).double()


def drift(net: nn.Module) -> dict[str, Tensor]:
    """Change every weight and buffer of ``net`` as training would; returns a copy of its state."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
        net.train()
        net(torch.randn(4, 1, 4, 4, dtype=torch.float64))
    return copy.deepcopy(net.state_dict())


def follow(rule: Averaging, count: int) -> tuple[Average, list[dict[str, Tensor]]]:
    """The average over ``count`` updates, and the states it saw."""
    net = make_net()
    average, states = Average(rule, net), []
    for done in range(1, count + 1):
        states.append(drift(net))
        average.update(net, done, count)
    return average, states


def averaged(states: list[dict[str, Tensor]], decays: list[float]) -> dict[str, Tensor]:
    """s ← d·s + (1 − d)·w over states, the first of which is copied."""
    result = dict(states[0])
    for state, decay in zip(states[1:], decays[1:], strict=True):
        result = {name: decay * result[name] + (1 - decay) * value for name, value in state.items()}
    return result


def largest(one: dict[str, Tensor], other: dict[str, Tensor], names: list[str]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in names)


def names(buffers: bool) -> list[str]:
    net = make_net()
    picked = net.named_buffers() if buffers else net.named_parameters()
    return [name for name, _ in picked if not name.endswith("num_batches_tracked")]


def test_an_average_an_epoch_is_the_official_swa_buffers_included() -> None:
    average, states = follow(Averaging(per="epoch", decay=0.9), 12)
    expected = averaged(states, [0.9] * 12)
    assert largest(average.state_dict(), expected, names(False) + names(True)) < 1e-12
    assert average.state_dict().keys() == states[0].keys()


def test_until_its_start_the_average_is_a_copy() -> None:
    rule = Averaging(per="step", decay=0.9996, start=0.75)
    average, states = follow(rule, 8)  # the official code copies through epoch 150 of 200
    expected = averaged(states, [0.0] * 6 + [0.9996] * 2)
    assert largest(average.state_dict(), expected, names(False) + names(True)) < 1e-12
    assert [rule.decay_at(done, 8) for done in (1, 6, 7, 8)] == [0, 0, 0.9996, 0.9996]


def test_the_ramp_is_that_of_dm_improves_at_with_its_own_buffers() -> None:
    rule = Averaging(per="step", decay=0.995, start=0.025, ramp=True, buffers="copy")
    average, states = follow(rule, 120)

    def decay(step: int, warmup: float = 0.025 * 120) -> float:
        return 0.0 if step < warmup else min(0.995, (1 + step - warmup) / (10 + step - warmup))

    expected = averaged(states, [decay(step) for step in range(1, 121)])
    assert largest(average.state_dict(), expected, names(False)) < 1e-12
    assert largest(average.state_dict(), states[-1], names(True)) == 0
    assert rule.decay_at(3, 120) == pytest.approx(0.1)
    assert rule.decay_at(100_000, 4_000_000) == pytest.approx(0.1)
    assert rule.decay_at(200_000, 4_000_000) == 0.995


def test_an_average_can_start_from_the_initial_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    averages = [Average(Averaging(per="step", decay=0.75, from_initial=start), model) for start in (True, False)]
    with torch.no_grad():
        first = model.weight.item()
        model.weight.fill_(first + 4)
    for average in averages:
        average.update(model, 1, 9)
    assert [average.model.weight.item() - first for average in averages] == pytest.approx([1, 4])


@pytest.mark.parametrize(
    "settings", [{"per": "batch"}, {"decay": 1.0}, {"decay": -0.1}, {"start": 1.0}, {"buffers": "none"}]
)
def test_impossible_rules_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="averaging"):
        Averaging(**settings)


def test_a_run_keeps_its_average_and_continues_with_it(tmp_path: Path) -> None:
    overrides = ("model=wrn10_2", "data.train_size=24", "trainer.batch_size=8", "averaging=epoch_ema")
    folder = train(make_config(tmp_path, *overrides, epochs=1))
    first = checkpoint.read(folder / "checkpoint.pt")
    assert all(torch.equal(value, first["model"][name]) for name, value in first["average"].items())
    folder = train(make_config(tmp_path, *overrides, epochs=2))
    second = checkpoint.read(folder / "checkpoint.pt")
    assert not all(torch.equal(value, second["model"][name]) for name, value in second["average"].items())
    assert "average_test_accuracy" in second["rows"][-1]


def test_an_average_saved_before_its_first_update_still_copies_the_weights() -> None:
    model, rule = nn.Linear(1, 1), Averaging(per="epoch")
    saved = Average(rule, model)
    drifted = copy.deepcopy(model)
    with torch.no_grad():
        drifted.weight.add_(4)
    restored = Average(rule, drifted)
    restored.load_state_dict(saved.state_dict(), updated=saved.updated)
    assert torch.equal(restored.model.weight, model.weight)
    restored.update(drifted, 1, 9)
    assert torch.equal(restored.model.weight, drifted.weight)


def test_buffers_can_be_estimated_on_training_images(tmp_path: Path) -> None:
    overrides = ("model=wrn10_2", "data.train_size=24", "trainer.batch_size=24", "averaging=epoch_ema")
    averaged = checkpoint.read(train(make_config(tmp_path, *overrides, epochs=2)) / "checkpoint.pt")
    overrides = (*overrides, "averaging.buffers=estimate")
    estimated = checkpoint.read(train(make_config(tmp_path, *overrides, epochs=2)) / "checkpoint.pt")
    name = "block1.layer.0.bn1.running_mean"
    assert torch.equal(averaged["average"]["conv1.weight"], estimated["average"]["conv1.weight"])
    # one batch of all images: the statistics are those of the first convolution's output on them
    images, _ = load_data(compose_config("train", ["data.train_size=24"]).data)
    first = F.conv2d(images.images.float() / 255, estimated["average"]["conv1.weight"], padding=1)
    torch.testing.assert_close(estimated["average"][name], first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(averaged["average"][name], first.mean((0, 2, 3)), rtol=1e-2, atol=1e-3)
