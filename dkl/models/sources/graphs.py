"""Files that hold a network with its weights: TorchScript archives and ExportedPrograms (``torch.export.save``).

Both are programs: they can run any code, which no inspection excludes, so they are loaded only if the user trusts them.
"""

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from dkl.errors import UserError, first_line
from dkl.models.create import normalize_input
from dkl.models.sources.source import Request, Source
from dkl.storage.checkpoint import READING_ERRORS
from dkl.storage.files import damage, file_hash

LOAD = "dkl.models.sources.graphs.load_graph"


def _kind(path: Path) -> str | None:
    """What kind of program the file ``path`` is, by the names in its archive; None if it is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    if "archive_format" in names:
        return "an ExportedProgram"
    return "TorchScript" if "constants.pkl" in names else None


def is_graph(path: Path) -> bool:
    """Whether the file ``path`` holds a network with its weights."""
    return path.is_file() and _kind(path) is not None


def _check_trust(path: Path, trust: bool) -> None:
    """Raise UserError unless the user trusts the program in the file ``path``."""
    if not trust:
        raise UserError(
            f"{path} is a program ({_kind(path)}), not weights: loading it can run any code on this machine. If you "
            "trust whoever made it, add trust=true (trust=True in Python); else ask for its weights alone"
        )


def graph_source(path: Path, request: Request) -> Source:
    """Return the network that the file ``path`` holds. Raises UserError if arguments were given, or without trust."""
    _check_trust(path, request.trust)
    if request.arguments:
        raise UserError(f"{path} holds its network, which takes no arguments: leave out arguments")
    model = {"_target_": LOAD, "name": path.stem, "sha256": file_hash(path), **request.normalization}
    return Source(model=model, weights=path, holds_network=True)


class Graph(nn.Module):
    """A loaded graph as a network in eval mode, which it keeps: how a graph computes was fixed when it was saved."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph
        for module in self.modules():  # eval() of a graph of torch.export is refused
            module.training = False

    def train(self, mode: bool = True) -> "Graph":
        return self  # graphs of torch.export refuse to change it

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.graph(images)
        return logits


def load_graph(
    path: str,
    name: str = "",
    sha256: str = "",
    mean: list[float] | None = None,
    std: list[float] | None = None,
    *,
    trust: bool = False,
) -> nn.Module:
    """Load the network in the TorchScript or ExportedProgram file ``path``, on the CPU in eval mode.

    ``mean`` and ``std`` normalize its input. ``name`` and ``sha256`` identify it in a record and have no effect here.
    Raises UserError without ``trust``, because the file can run any code, or if it is damaged.
    """
    file = Path(path)
    _check_trust(file, trust)
    if why := damage(file):
        raise UserError(f"{file} is damaged or incomplete ({why}): copy it again")
    kind = _kind(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            script = kind == "TorchScript"
            graph = Graph(torch.jit.load(path, map_location="cpu").eval() if script else _load_program(file)).float()
    except READING_ERRORS as error:
        raise UserError(f"{file}: torch {torch.__version__} cannot load it as {kind}: {first_line(error)}") from None
    return graph if mean is None or std is None else normalize_input(graph, mean, std).eval()


def _load_program(path: Path) -> nn.Module:
    program = torch.export.load(str(path))
    trains = bool(program.graph_signature.buffers_to_mutate)
    for node in program.graph.nodes:  # operators such as BatchNorm or dropout
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        trains = trains or True in (given.get("training") is True, given.get("train") is True)
    if trains:
        raise ValueError("it was exported in train mode; export it after model.eval()")
    module: nn.Module = program.module(check_guards=False)
    return module
