"""Files that hold a network give equal logits, and are refused if loading them could run code."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.models import create_model
from dkl.models.sources import is_graph
from dkl.models.sources.graphs import load_graph
from tests.bad_input.broken_files import RunsCode


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
    graph = load_graph(str(path)).train().eval()
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


class RunsOnLoad(nn.Module):
    """Its script runs ``__setstate__`` when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        print("runs on load")
        self.scale, self.training = state

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_a_script_that_runs_on_load_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(RunsOnLoad()), tmp_path / "net.ts")
    capsys.readouterr()
    with zipfile.ZipFile(tmp_path / "net.ts") as old:
        entries = [(name, old.read(name)) for name in old.namelist()]
    disguises = [
        entries,
        [(name.replace(".py", ".PY"), content) for name, content in entries],
        [(name, content.replace(b"def __set", b"def  __set")) for name, content in entries],
    ]
    for disguise in disguises:
        with zipfile.ZipFile(tmp_path / "net.ts", "w") as new:
            for name, content in disguise:
                new.writestr(name, content)
        with pytest.raises(UserError, match="contains __setstate__"):
            load_graph(str(tmp_path / "net.ts"))
        assert capsys.readouterr().out == ""


class WritesFile(nn.Module):
    """Its script writes a file when it is evaluated."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "executed")
        return x


def test_a_script_that_writes_files_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(WritesFile()), tmp_path / "net.ts")
    with pytest.raises(UserError, match="contains save"):
        load_graph(str(tmp_path / "net.ts"))


def test_archives_that_torch_and_python_read_otherwise_are_refused(program: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(program) as old:
        model = next(old.read(name) for name in old.namelist() if name.endswith("model.json"))
    entries = {"net/archive_format": b"pt2", "net/Archive_format": b"pt2"}
    pickled = dict.fromkeys(("serialized_state_dict.pt", "serialized_constants.pt"), pickle.dumps(RunsCode()))
    old_format = {"net/archive_format": b"pt2", "version": b"8.1", "serialized_exported_program.json": model, **pickled}
    for content in (entries, old_format):
        with zipfile.ZipFile(tmp_path / "net.pt2", "w") as new:
            for name, item in content.items():
                new.writestr(name, item)
        with pytest.raises(UserError, match="no archive that torch reads"):
            load_graph(str(tmp_path / "net.pt2"))
        assert not Path("executed").exists()


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


@pytest.mark.parametrize(
    ("member", "change", "says"),
    [
        ("models/model.json", edit("target", "torch.os.system"), "'torch.os.system'"),
        ("models/model.json", edit("target", "_operator.methodcaller"), "'_operator.methodcaller'"),
        ("models/model.json", edit("name", "x=__import__('os')"), "__import__"),
        ("models/model.json", edit("expr_str", "().__class__"), "().__class__"),
        ("models/model.json", edit("expr_str", "open('executed')"), "executed"),
        ("sample_inputs/model.pt", lambda _: pickle.dumps(RunsCode()), "more than tensors and plain values"),
        ("weights_config.json", lambda text: text.replace(b'pickle": false', b'pickle":true'), "pickled tensors"),
        ("models/model.json", edit("target", "torch.ops.aten.from_file.default"), "from_file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_that_could_run_code_is_refused(
    member: str, change: Callable[[bytes], bytes], says: str, program: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="could run code") as refused:
        load_graph(str(changed(program, tmp_path / "net.pt2", member, change)))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("executed").exists()


def test_a_program_in_train_mode_is_refused(tmp_path: Path) -> None:
    export(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3)).train(), tmp_path / "net.pt2")
    with pytest.raises(UserError, match=r"exported in train mode; export it after model\.eval\(\)"):
        load_graph(str(tmp_path / "net.pt2"))
