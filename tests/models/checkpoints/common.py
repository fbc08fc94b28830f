"""A small network, and files of its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkl.models import create_model, load_checkpoint

State = dict[str, Tensor]


def make_model() -> nn.Module:
    """A network with every kind of key: convolutions, BatchNorm buffers and a linear layer."""
    return create_model("wrn10_2", 5)


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def assert_loads(source: nn.Module, path: Path, *expected: str, key: str | None = None) -> None:
    model = make_model().eval()
    x = torch.rand(3, 3, 8, 8)
    assert not torch.allclose(model(x), source(x))
    line = load_checkpoint(model, path, key)
    assert torch.equal(model(x), source(x))
    for words in (str(path), *expected):
        assert words in line
    assert "\n" not in line


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}
