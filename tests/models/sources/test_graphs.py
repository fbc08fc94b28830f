"""Files that hold a network give equal logits, and as programs they are refused unless they are trusted."""

import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.models import create_model
from dkl.models.sources import is_graph
from dkl.models.sources.graphs import load_graph
from dkl.sharing import load_model


def export(model: nn.Module, path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def script(model: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.rand(2, 1, 8, 8)), path)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("wrn10_2", 10, 1, [0.5], [0.25]).eval()


@pytest.fixture(scope="module")
def program(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "net.pt2"
    export(model, path)
    return path


@pytest.mark.parametrize("kind", ["program", "script"])
def test_logits_and_gradients_are_those_of_the_network(
    kind: str, model: nn.Module, program: Path, tmp_path: Path
) -> None:
    path = program if kind == "program" else tmp_path / "net.ts"
    if kind == "script":
        script(model, path)
    assert is_graph(path)
    graph = load_graph(str(path), trust=True)
    normalized = load_graph(str(path), mean=[0.5], std=[0.5], trust=True)
    assert not any(module.training for each in (graph, normalized) for module in each.modules())
    graph.train().eval()
    x = torch.rand(5, 1, 8, 8)  # another batch size than it was saved with
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    graph(found).square().sum().backward()
    model(expected).square().sum().backward()
    torch.testing.assert_close(graph(x), model(x))
    torch.testing.assert_close(found.grad, expected.grad)


def test_a_checkpoint_is_no_graph(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert not is_graph(tmp_path / "w.pt")
    assert not is_graph(tmp_path)


class WritesFile(nn.Module):
    """Its script writes a file when it is evaluated."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "executed")
        return x


def changed(source: Path, path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """Copy the archive ``source``, with other content of the entry that ends with ``member``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(member) else content)
    return path


def edit(key: str, value: str) -> Callable[[bytes], bytes]:
    """Replace the first text under ``key`` in JSON, wherever it is."""

    def replace(item: object) -> bool:
        if isinstance(item, dict):
            if isinstance(item.get(key), str):
                item[key] = value
                return True
            return any(replace(each) for each in item.values())
        return isinstance(item, list) and any(replace(each) for each in item)

    def change(content: bytes) -> bytes:
        loaded = json.loads(content)
        assert replace(loaded)
        return json.dumps(loaded).encode()

    return change


ATTACK = "open('executed', 'w').close()"
EXPRESSION = f"exec({'+'.join(f'chr({ord(letter)})' for letter in ATTACK)})"
FACTORY = {"default_factory_module": "attack", "default_factory_name": "Factory", "dict_context": []}
OUTPUT = [1, {"type": "collections.defaultdict", "context": FACTORY, "children_spec": []}]


@pytest.mark.parametrize("attack", ["size", "output", "script"])
def test_a_program_runs_code_only_if_it_is_trusted(
    attack: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three attacks that look harmless: a size, the module of an output's type, and an operator in octal letters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("attack.py").write_text(f"{ATTACK}\nFactory = list")
    path = tmp_path / "net.pt2"
    if attack == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(WritesFile()), tmp_path / "plain")
        octal = rb'getattr(torch, "sa\166e")'
        changed(tmp_path / "plain", path, ".py", lambda code: code.replace(b"torch.save", octal))
    else:
        key, value = ("expr_str", EXPRESSION) if attack == "size" else ("out_spec", json.dumps(OUTPUT))
        changed(program, path, "models/model.json", edit(key, value))
    with pytest.raises(UserError, match=r"is a program \(.*run any code on this machine.* trust=true"):
        load_graph(str(path))
    for given in ({}, {"data": "digits"}):
        with pytest.raises(UserError, match="trust=True in Python"):
            load_model(path, **given)
    assert not Path("executed").exists()
    with suppress(UserError, ValueError):  # what is left of the network is of no use
        load_graph(str(path), trust=True)(torch.rand(1, 1, 8, 8))
    assert Path("executed").exists(), "so the refusal above is needed"
    sys.modules.pop("attack", None)


def test_a_program_in_train_mode_is_refused(tmp_path: Path) -> None:
    export(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3)).train(), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"exported in train mode; export it after model\.eval\(\)"):
        load_graph(str(tmp_path / "net.pt2"), trust=True)
