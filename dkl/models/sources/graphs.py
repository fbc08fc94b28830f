"""Files that hold a network with its weights: TorchScript archives and ExportedPrograms (``torch.export.save``).

Both are zip archives, and torch trusts them when it loads them. Here an archive is read first, and refused if loading
it could run anything but torch's operators:

* A TorchScript file runs its methods ``__setstate__`` when it is loaded, and may call operators that use files. A file
  that has one is refused.
* An ExportedProgram is unpickled, its expressions are evaluated, and its operators are looked up by name. Its pickles
  must hold tensors and plain values, its names and expressions must be plain, and its operators must be ATen's.

torch's reader of archives ignores case and an archive can be built that Python's reads otherwise, so the checks use
torch's reader, and both must see the same entries.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkl.errors import UserError, first_line
from dkl.models.create import normalize_input
from dkl.models.sources.source import Request, Source
from dkl.storage.checkpoint import READING_ERRORS
from dkl.storage.files import damage, file_hash

LOAD = "dkl.models.sources.graphs.load_graph"

NAME = re.compile(r"[\w.]*")
SYMBOL = r"Symbol\('\w+'(?:, \w+=(?:True|False))*\)"
EXPRESSION = re.compile(rf"(?:{SYMBOL}|[\w ,()+*/<>=-])*")
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(?:save|from_file)\b)\w+\.\w+|torch\.ops\.higher_order\.wrap_with_set_grad_enabled|torch\.sym_\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|ge|gt|le|lt|and_|or_)|math\.\w+"
)
"""Texts that an ExportedProgram may contain: names, expressions of sizes, and operators."""

FORBIDDEN = re.compile(rb"__setstate__|\b(?:save|from_file|classes)\b|(?<![\w.])ops\b(?!\.(?:prim|quantized)\.)")
"""Forbidden in the code of a TorchScript file: what runs on load, operators that use files, and custom ones."""

UNREAD = {"metadata", "in_spec", "out_spec", "torch_version", "guards_code"}
"""Parts of an ExportedProgram whose texts torch compares or shows, and never evaluates here."""


def _members(path: Path) -> list[str]:
    """The names in the zip archive ``path`` without their common folder; none if it is no archive."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [name.partition("/")[2] for name in archive.namelist()]


def _kind(path: Path) -> str | None:
    names = _members(path)
    if "archive_format" in names:
        return "an ExportedProgram"
    return "TorchScript" if "constants.pkl" in names else None


def _records(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the entries of the archive ``path`` as torch reads them: lower-case names without their folder, contents.

    Raises ValueError if Python's reader sees other entries, or if two names differ in nothing but case.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    if sorted(names) != sorted(_members(path)) or len({name.lower() for name in names}) < len(names):
        raise ValueError("its entries are ambiguous")
    for name in names:
        yield name.lower(), reader.get_record(name)


def is_graph(path: Path) -> bool:
    """Whether the file ``path`` holds a network with its weights."""
    return path.is_file() and _kind(path) is not None


def graph_source(path: Path, request: Request) -> Source:
    """Return the network that the file ``path`` holds. Raises UserError if arguments were given."""
    if request.arguments:
        raise UserError(f"{path} holds its network, which takes no arguments: leave out arguments")
    model = {"_target_": LOAD, "name": path.stem, "sha256": file_hash(path), **request.normalization}
    return Source(model=model, weights=path, holds_network=True)


class Graph(nn.Module):
    """A loaded graph as a network in eval mode, which it keeps: how a graph computes was fixed when it was saved."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> "Graph":
        return self  # graphs of torch.export refuse to change it

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.graph(images)
        return logits


def load_graph(
    path: str, name: str = "", sha256: str = "", mean: list[float] | None = None, std: list[float] | None = None
) -> nn.Module:
    """Load the network in the TorchScript or ExportedProgram file ``path``, on the CPU in eval mode.

    ``mean`` and ``std`` normalize its input. ``name`` and ``sha256`` identify it in a record and have no effect here.
    Raises UserError if the file is damaged, or if loading it could run code.
    """
    file = Path(path)
    if why := damage(file):
        raise UserError(f"{file} is damaged or incomplete ({why}): copy it again")
    kind = _kind(file)
    check, load = (_check_script, _load_script) if kind == "TorchScript" else (_check_program, _load_program)
    try:
        why = next((f"{name} {why}" for name, content in _records(file) if (why := check(name, content))), None)
    except READING_ERRORS as error:
        raise UserError(f"{file} is no archive that torch reads ({first_line(error)}): export it again") from None
    if why:
        raise UserError(
            f"{file} is not loaded, because that could run code of the file: {why}; ask for its weights alone"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            graph = Graph(load(file).float())
    except READING_ERRORS as error:
        raise UserError(f"{file}: torch {torch.__version__} cannot load it as {kind}: {first_line(error)}") from None
    return graph if mean is None or std is None else normalize_input(graph, mean, std)


def _check_script(name: str, content: bytes) -> str | None:
    """What the entry ``name`` of a TorchScript file could run; None for nothing."""
    found = FORBIDDEN.search(content) if name.startswith("code/") and name.endswith(".py") else None
    return f"contains {found[0].decode()}" if found else None


def _load_script(path: Path) -> nn.Module:
    module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    return module.eval()


def _check_program(name: str, content: bytes) -> str | None:
    """What the entry ``name`` of an ExportedProgram could run when it is loaded; None for nothing."""
    if name.startswith("data/aotinductor") or "custom_obj" in name or "opaque_obj" in name:
        return "is no part of a network"
    if name.endswith(".pt"):
        return _check_pickle(content)
    if name.endswith("_config.json") and _pickles(content):
        return "names pickled tensors"
    if name.startswith("models/") and (text := next(_unusual(json.loads(content)), None)):
        return f"contains {text[:60]!r}"
    return None


def _pickles(config: bytes) -> bool:
    """Whether the JSON ``config`` says of any tensor that it is pickled."""
    found: list[bool] = []
    json.loads(config, object_hook=lambda item: found.append(bool(item.get("use_pickle"))))
    return any(found)


def _check_pickle(content: bytes) -> str | None:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # whatever it holds instead
        return "holds more than tensors and plain values"
    return None


def _unusual(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts in the JSON ``value``, found under ``key``, that are no names, expressions or operators."""
    if isinstance(value, dict):
        yield from (str(name) for name in value if not NAME.fullmatch(str(name)))
        for name, item in value.items():
            if name not in UNREAD:
                yield from _unusual(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _unusual(item, key)
    elif isinstance(value, str):
        allowed = {"target": OPERATOR, "expr_str": EXPRESSION}.get(key, NAME)
        if not allowed.fullmatch(value) or (key == "expr_str" and "__" in value):
            yield value


def _trains(node: torch.fx.Node) -> bool:
    """Whether the operator of ``node`` was saved in train mode, such as BatchNorm or dropout."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    return any(given.get(name) is True for name in ("training", "train"))


def _load_program(path: Path) -> nn.Module:
    program = torch.export.load(str(path))
    if program.graph_signature.buffers_to_mutate or any(map(_trains, program.graph.nodes)):
        raise ValueError("it was exported in train mode; export it after model.eval()")
    module: nn.Module = program.module(check_guards=False)
    return module
