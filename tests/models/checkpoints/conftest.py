"""A network whose weights are saved."""

import pytest
import torch
from torch import nn

from tests.models.checkpoints.common import make_model


@pytest.fixture
def source(seed: int) -> nn.Module:
    """The model whose weights are saved; its BatchNorm buffers differ from those of a new model."""
    model = make_model()
    model(torch.rand(8, 3, 8, 8))
    return model.eval()
