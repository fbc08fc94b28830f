"""``format=torch``: the network with its weights as an ExportedProgram, for batches of any size."""

from pathlib import Path

import torch
from torch import nn

from dkl.sharing.card import model_card
from dkl.sharing.exported import Exported
from dkl.storage.files import write_atomically, write_text


def write(exported: Exported, folder: Path) -> list[Path]:
    """Write ``model.pt2`` and a card; return both."""
    program, card = folder / "model.pt2", folder / "README.md"
    content = torch.export.export(exported.model, (example(exported),), dynamic_shapes=(DYNAMIC,))
    write_atomically(program, lambda file: torch.export.save(content, file))
    write_text(card, model_card(exported, f"{folder.name}/{program.name}"))
    return [program, card]


DYNAMIC = {0: torch.export.Dim("batch")}
"""The dimension of images that may have any size."""


def example(exported: Exported) -> torch.Tensor:
    """Return a batch of black images, of the size for which the network is exported."""
    assert isinstance(exported.model, nn.Module)
    return torch.zeros(2, *exported.subject.data.shape)
