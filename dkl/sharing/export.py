"""``export``: writes a finished run's network to a folder, in one of several formats."""

from collections.abc import Callable
from pathlib import Path

from dkl.errors import UserError, choose_from
from dkl.sharing.exported import Exported, read_run
from dkl.sharing.formats import onnx, robustbench, timm_folder, torch_program
from dkl.storage.files import check_writable

FORMATS: dict[str, Callable[[Exported, Path], list[Path]]] = {
    "hf": timm_folder.write,
    "robustbench": robustbench.write,
    "torch": torch_program.write,
    "onnx": onnx.write,
}
"""By name: what writes a network into a folder, and returns the files."""


def export(
    run: str | Path, to: str | Path, *, format: str = "hf", weights: str | None = None, results: str | Path = "results"
) -> list[Path]:
    """Write the network of the finished run in folder ``run`` to folder ``to``; return the files.

    ``hf`` is a folder that timm and the Hugging Face hub read, ``robustbench`` what RobustBench asks for, ``torch`` an
    ExportedProgram, and ``onnx`` an ONNX file. ``weights`` are last, average or best. The figures of the card are those
    of the records in ``results``. Raises UserError if there is no such run or format, or if the network does not fit.
    """
    if format not in FORMATS:
        raise UserError(f"format={format!r} is no format of an export: {choose_from(format, FORMATS)}")
    check_writable(Path(to))
    exported = read_run(Path(run), weights=weights, results=Path(results))
    return FORMATS[format](exported, Path(to))
