"""Global generators are seeded inside the guard and restored after it, also after an error."""

import contextlib
import random

import numpy as np
import torch

from dkl.data.seeding import preserved_global_rng, seed_global
from dkl.errors import UserError


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.standard_normal()), torch.rand(()).item()]


def draw_seeded() -> list[float]:
    with preserved_global_rng():
        seed_global(5)
        return draw()


def test_global_generators_are_restored_also_after_an_error() -> None:
    random.gauss(0, 1)  # leaves the second of a pair of normal draws, which is part of the state
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    plain = draw()
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    first = draw_seeded()
    with contextlib.suppress(UserError), preserved_global_rng():
        seed_global(6)
        raise UserError
    assert draw() == plain
    assert draw_seeded() == first != plain
