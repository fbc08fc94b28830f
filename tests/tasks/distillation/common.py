"""Random features, and the mark of tests that need torchdistill."""

from importlib.util import find_spec

import pytest
import torch

from dkl.models.features import Features

needs_torchdistill = pytest.mark.skipif(
    find_spec("torchdistill") is None, reason="torchdistill is not installed: pip install 'dkl[features]'"
)


def features(*stages: tuple[int, int], pooled: int) -> Features:
    """Four images' random features in float64: (width, size) of each stage."""
    maps = [torch.randn(4, width, size, size, dtype=torch.float64) for width, size in stages]
    return Features(maps, torch.randn(4, pooled, dtype=torch.float64))
