"""Chance that is fixed by what it is for: seeds from keys, and the global generators on loan.

torchvision and timm draw from the global generators of torch, NumPy and Python. On loan these are seeded for what is
to be drawn and put back as they were, so that neither the number of workers nor the rest of a program matters.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """32 bits of their own for each key of non-negative integers."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def generator_of(*key: int) -> torch.Generator:
    """A generator of its own for each key of non-negative integers."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_global(seed: int) -> None:
    """Start the global generators of a CPU from ``seed``, below 2³²: torch's, NumPy's and Python's."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def preserved_global_rng() -> Iterator[None]:
    """The global generators of a CPU are put back after the body as they were before."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
