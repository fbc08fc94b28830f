"""What every test gets: few threads, the same seeds, hypothesis without deadlines or a database; ``make_record``."""

import random
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import torch

from dkl.records import Record
from tests import factories

torch.set_num_threads(1)
hypothesis.settings.register_profile("dkl", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("dkl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: the others fill what time is left on each core."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from seed 0, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """``tests.factories.make_record`` as a fixture."""
    return factories.make_record
