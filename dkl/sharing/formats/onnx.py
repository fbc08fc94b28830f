"""``format=onnx``: the network with its weights for ONNX runtimes (extra ``onnx``)."""

import contextlib
import io
from pathlib import Path

import torch

from dkl.errors import needs_extra
from dkl.sharing.card import model_card
from dkl.sharing.exported import Exported
from dkl.sharing.formats.torch_program import DYNAMIC, example
from dkl.storage.files import write_atomically, write_text


def write(exported: Exported, folder: Path) -> list[Path]:
    """Write ``model.onnx`` and a card; return both. Raises NotInstalledError if onnx is missing."""
    with needs_extra("onnx"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    path, card = folder / "model.onnx", folder / "README.md"
    with contextlib.redirect_stdout(io.StringIO()):  # torch prints its progress
        program = torch.onnx.export(
            exported.model,
            (example(exported),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(DYNAMIC,),
            dynamo=True,
        )
    assert program is not None
    content = program.model_proto.SerializeToString()
    write_atomically(path, lambda file: file.write(content))
    write_text(card, model_card(exported, f"{folder.name}/{path.name}"))
    return [path, card]
