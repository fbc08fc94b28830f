"""The fixture ``pretend``: a second kind of device in this process, while a module of tests here runs."""

from collections.abc import Iterator

import pytest
import torch

from tests.device import pretend as device


@pytest.fixture(scope="package")
def pretend() -> Iterator[str]:
    """Make ``pretend`` this machine's accelerator; skip if it cannot be built, or if there is a real one."""
    if reason := device.missing():
        pytest.skip(reason)
    if torch.cuda.is_available():
        pytest.skip("torch.accelerator is the GPU here")
    with device.available():
        yield device.NAME
