"""If weights do not fit, the tensors are listed and none is loaded; broken and unsafe files are refused by name."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dkl.errors import UserError
from dkl.models import create_model, load_checkpoint
from tests.models.checkpoints.common import assert_loads, make_model, write


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(source: nn.Module, tmp_path: Path) -> None:
    state = dict(source.state_dict())
    del state["conv1.weight"]
    state["head.scale"] = torch.ones(3)
    state["fc.weight"] = torch.rand(7, 128)
    model = make_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = write(tmp_path / "other.pt", state)
    with pytest.raises(UserError) as caught:
        load_checkpoint(model, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert not hasattr(caught.value, "__notes__")  # the line names all
    assert "was not loaded" in message
    assert re.search(r"1 missing: conv1\.weight", message)
    assert re.search(r"1 unexpected: head\.scale", message)
    assert re.search(r"1 of another shape: fc\.weight \(7, 128\) for \(5, 128\)", message)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_of_another_network_are_listed_on_one_screen(tmp_path: Path) -> None:
    model = make_model()
    state = create_model("preact_resnet18", 5, width=8).state_dict()
    with pytest.raises(UserError, match="does not fit") as caught:
        load_checkpoint(model, write(tmp_path / "other.pt", state))
    assert len(str(caught.value)) < 1000
    (listed,) = caught.value.__notes__
    lines = listed.splitlines()
    assert len(lines) <= 40
    own, theirs = set(model.state_dict()), set(state)
    for kind, keys in {"missing": own - theirs, "unexpected": theirs - own}.items():
        *named, last = [line.split(" ")[1:] for line in lines if line.startswith(f"{kind}: ")]
        assert named
        assert {key for key, *_ in named} <= keys
        lacking = [key for key in keys if not key.endswith("num_batches_tracked")] if kind == "missing" else keys
        assert last == ["and", f"{len(lacking) - len(named)}", "more"]


def test_a_few_tensors_that_do_not_fit_are_all_listed(source: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in source.state_dict().items() if not key.startswith("block1.layer.0.")}
    with pytest.raises(UserError) as caught:
        load_checkpoint(make_model(), write(tmp_path / "part.pt", {**state, "scale": torch.ones(3)}))
    (listed,) = caught.value.__notes__
    lacking = [key for key in source.state_dict() if key not in state and not key.endswith("num_batches_tracked")]
    assert len(lacking) == 11
    assert [line.partition(" (")[0] for line in listed.splitlines()[:-1]] == [
        f"missing: {key}" for key in sorted(lacking)
    ]
    assert listed.splitlines()[-1] == "unexpected: scale (3,)"


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [1, 2], torch.ones(3), {"state_dict": {}}, {"weights": {"a": torch.ones(1)}}]
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="holds no state_dict"):
        load_checkpoint(make_model(), write(tmp_path / "none.pt", content))


class Trap:
    """Touches a file if it is unpickled unsafely."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_never_run(source: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "trap.pt", {"state_dict": source.state_dict(), "extra": Trap(tmp_path / "touched")})
    with pytest.raises(UserError, match=r"weights_only=False.*weights\.pt"):
        load_checkpoint(make_model(), path)
    assert not (tmp_path / "touched").exists()


def test_an_unsafe_checkpoint_is_refused_with_a_fix_that_works(source: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "args.pt", {"state_dict": source.state_dict(), "args": argparse.Namespace(lr=0.1)})
    with pytest.raises(UserError, match=r"torch\.load\(path, weights_only=False\)\['state_dict'\]"):
        load_checkpoint(make_model(), path)
    assert_loads(source, write(tmp_path / "weights.pt", torch.load(path, weights_only=False)["state_dict"]))


def test_missing_files_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UserError, match=re.escape(f"no checkpoint at {path}")):
            load_checkpoint(make_model(), path)


def test_a_truncated_file_is_refused_and_nothing_is_loaded(source: nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.pt", source.state_dict())
    path.write_bytes(path.read_bytes()[:2000])
    model = make_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_checkpoint(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(source: nn.Module, tmp_path: Path, value: float) -> None:
    state, model = {key: tensor.clone() for key, tensor in source.state_dict().items()}, make_model()
    broken = next(reversed([key for key, tensor in state.items() if tensor.ndim > 1]))
    state[broken].view(-1)[3] = value
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"NaN or infinite values in 1 tensors \({broken}\).*another checkpoint"):
        load_checkpoint(model, write(tmp_path / "broken.pt", state))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
