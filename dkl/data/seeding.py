"""Deterministic seeding: seeds derived from integer keys, and a guard for the global generators.

Some transforms of torchvision and timm draw from the global generators of torch, NumPy and Python. Seeding these for
each image, and restoring them afterwards, makes the result independent of the number of workers and of other code.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """Return a 32-bit seed derived from a key of non-negative integers."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def generator_of(*key: int) -> torch.Generator:
    """Return a CPU generator seeded from a key of non-negative integers."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_global(seed: int) -> None:
    """Seed the global CPU generators of torch, NumPy and Python; ``seed`` must be below 2³²."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def preserved_global_rng() -> Iterator[None]:
    """Restore the global CPU generators after the body, also if it raises."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
