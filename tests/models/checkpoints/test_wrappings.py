"""Weights saved by others load in every known wrapping."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dkl.errors import UserError
from dkl.models import create_model, load_checkpoint
from tests.models.checkpoints.common import assert_loads, make_model, prefixed, write


def test_a_plain_state_dict(source: nn.Module, tmp_path: Path) -> None:
    assert_loads(source, write(tmp_path / "plain.pt", source.state_dict()), "plain")
    assert_loads(source, write(tmp_path / "dict.pt", dict(source.state_dict())), "plain")
    assert_loads(source, write(tmp_path / "old.pt", OrderedDict(source.state_dict())), "plain")


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "net", "ema"])
def test_under_each_wrapper(source: nn.Module, tmp_path: Path, wrapper: str) -> None:
    content = {"epoch": 200, "best": 0.5, wrapper: source.state_dict(), "optimizer": {"lr": 0.1, "momenta": [1, 2]}}
    assert_loads(source, write(tmp_path / "wrapped.pt", content), repr(wrapper))


@pytest.mark.parametrize(("outer", "inner"), [("model", "state_dict"), ("net", "model"), ("state_dict", "ema")])
def test_under_two_wrappers(source: nn.Module, tmp_path: Path, outer: str, inner: str) -> None:
    content = {"epoch": 3, outer: {inner: prefixed(source.state_dict(), "module."), "arch": "wrn"}}
    assert_loads(source, write(tmp_path / "nested.pt", content), repr(f"{outer}.{inner}"))


def test_the_average_is_taken_if_both_are_saved(source: nn.Module, tmp_path: Path) -> None:
    content = {"model": make_model().state_dict(), "ema": source.state_dict()}
    assert_loads(source, write(tmp_path / "both.pt", content), "averaged weights under 'ema'", "also there: 'model'")


def test_the_average_of_dm_improves_at_is_taken(source: nn.Module, tmp_path: Path) -> None:
    live = make_model()
    content = {
        "model_state_dict": prefixed(source.state_dict(), "module.0."),
        "unaveraged_model_state_dict": prefixed(live.state_dict(), "module.0."),
        "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.2}]},
        "epoch": 400,
    }
    path = write(tmp_path / "weights-best.pt", content)
    also = "also there: 'unaveraged_model_state_dict'"
    assert_loads(source, path, "averaged weights under 'model_state_dict'", also, "'module.0.'")
    assert_loads(live.eval(), path, "state_dict under 'unaveraged_model_state_dict'", key="unaveraged_model_state_dict")


def test_an_averaged_model_of_torch(source: nn.Module, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(source)
    assert_loads(source, write(tmp_path / "swa.pt", averaged.state_dict()), "'module.'", "n_averaged")


def own_checkpoint(last: nn.Module, average: nn.Module | None) -> dict[str, Any]:
    """A shortened checkpoint of this project's training."""
    content: dict[str, Any] = {"version": 1, "model": last.state_dict(), "task": {"prior.prior": torch.ones(5, 5)}}
    return content | ({"average": average.state_dict()} if average else {}) | {"epoch": 3, "rows": [{"loss": 0.1}]}


def test_the_last_weights_of_an_own_checkpoint_are_taken_unless_another_key_is_given(
    source: nn.Module, tmp_path: Path
) -> None:
    average = make_model().eval()
    path = write(tmp_path / "last.pt", own_checkpoint(source, average))
    assert_loads(source, path, "state_dict under 'model'", "also there: 'average')")
    assert_loads(source, path, "under 'model'", key="model")
    assert_loads(average, path, "averaged weights under 'average'", "also there: 'model')", key="average")


def test_a_key_may_be_any_entry(source: nn.Module, tmp_path: Path) -> None:
    content = {"state_dict": make_model().state_dict(), "swa": {"state_dict": source.state_dict()}}
    assert_loads(source, write(tmp_path / "swa.pt", content), "'swa.state_dict'", key="swa")


@pytest.mark.parametrize("key", ["average", "epoch", "rows"])
def test_a_key_without_weights_is_refused_with_those_that_have_weights(
    source: nn.Module, tmp_path: Path, key: str
) -> None:
    path = write(tmp_path / "last.pt", own_checkpoint(source, None) | {"counts": {3: torch.ones(1)}})
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"no weights under '{key}'; try 'model'$"):
        load_checkpoint(model, path, key)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_key_of_a_plain_state_dict_is_refused(source: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "plain.pt", source.state_dict())
    with pytest.raises(UserError, match="give no key"):
        load_checkpoint(make_model(), path, key="average")


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module.0.", "0.", "1.", "module.model.", "1.module."]
)
def test_under_each_prefix(source: nn.Module, tmp_path: Path, prefix: str) -> None:
    path = write(tmp_path / "prefixed.pt", {"state_dict": prefixed(source.state_dict(), prefix)})
    assert_loads(source, path, repr(prefix), "state_dict")


def test_behind_a_normalization_layer(source: nn.Module, tmp_path: Path) -> None:
    state = prefixed(source.state_dict(), "module.1.")
    state |= {"module.0.mean": torch.rand(3), "module.0.std": torch.rand(3)}
    assert_loads(source, write(tmp_path / "sequential.pt", state), "2 keys ignored")
    state = prefixed(source.state_dict(), "module.") | {"module.mu": torch.rand(3), "module.sigma": torch.rand(3)}
    assert_loads(source, write(tmp_path / "inside.pt", state), "2 keys ignored")


CONSTANTS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}


@pytest.mark.parametrize("names", [("mean", "std"), ("mu", "sigma"), ("normalize.mean", "normalize.std")])
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_constants_that_the_model_applies_itself_are_ignored(
    source: nn.Module, tmp_path: Path, names: tuple[str, str], shape: tuple[int, ...]
) -> None:
    saved = {name: torch.tensor(value).view(shape) for name, value in zip(names, CONSTANTS.values(), strict=True)}
    path = write(tmp_path / "inside.pt", source.state_dict() | saved)
    model = create_model("wrn10_2", 5, **CONSTANTS).eval()
    line = load_checkpoint(model, path)
    assert line.endswith(f"2 keys ignored ({names[0]}, {names[1]})")
    x = torch.rand(3, 3, 8, 8)
    by_hand = (x - torch.tensor(CONSTANTS["mean"]).view(3, 1, 1)) / torch.tensor(CONSTANTS["std"]).view(3, 1, 1)
    torch.testing.assert_close(model(x), source(by_hand))


@pytest.mark.parametrize(
    ("applied", "differing"),
    [
        ({}, "mean, 0.4914, 0.4822, 0.4465"),
        ({"mean": (0.5, 0.5, 0.5), "std": CONSTANTS["std"]}, "mean, 0.4914, 0.4822, 0.4465"),
        ({"mean": CONSTANTS["mean"], "std": (0.2023, 0.1994, 0.2010)}, "std, 0.2471, 0.2435, 0.2616"),
    ],
)
def test_constants_that_the_model_does_not_apply_are_reported(
    source: nn.Module, tmp_path: Path, applied: dict[str, tuple[float, ...]], differing: str
) -> None:
    saved = {name: torch.tensor(value) for name, value in CONSTANTS.items()}
    line = load_checkpoint(create_model("wrn10_2", 5, **applied), write(tmp_path / "w.pt", source.state_dict() | saved))
    assert f"warning: this model does not apply their {differing}" in line


def test_a_normalization_without_effect_is_not_reported(source: nn.Module, tmp_path: Path) -> None:
    saved = {"mean": torch.zeros(3), "std": torch.ones(())}
    assert "warning" not in load_checkpoint(make_model(), write(tmp_path / "w.pt", source.state_dict() | saved))


def test_the_network_with_silu_behind_every_prefix(tmp_path: Path) -> None:
    saved = create_model("wrn10_2_swish", 5).eval()
    x = torch.rand(3, 3, 8, 8)
    for prefix in ("", "module.", "module.0.", "model."):
        model = create_model("wrn10_2_swish", 5).eval()
        load_checkpoint(model, write(tmp_path / "swish.pt", prefixed(saved.state_dict(), prefix)))
        assert torch.equal(model(x), saved(x))


def test_a_model_whose_own_keys_carry_a_prefix_keeps_them(tmp_path: Path) -> None:
    saved, model = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2))
    for name, state in (("own.pt", saved.state_dict()), ("wrapped.pt", prefixed(saved.state_dict(), "module."))):
        nn.init.zeros_(model[1].weight)
        load_checkpoint(model, write(tmp_path / name, state))
        assert torch.equal(model[1].weight, saved[1].weight)


def test_the_unused_block_of_trades(source: nn.Module, tmp_path: Path) -> None:
    state = source.state_dict()
    unused = {key.replace("block1.", "sub_block1."): torch.rand_like(value) for key, value in state.items()
               if key.startswith("block1.") and value.is_floating_point()}  # fmt: skip
    assert unused
    ignored = f"{len(unused)} keys ignored"
    assert_loads(source, write(tmp_path / "trades.pt", state | unused), ignored, "sub_block1")
    assert_loads(source, write(tmp_path / "parallel.pt", prefixed(state | unused, "module.")), ignored)


def test_counters_of_batches_may_be_missing(source: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(state) < len(source.state_dict())
    assert_loads(source, write(tmp_path / "torch03.pt", state))
