"""Setup of every test: one thread, no GPU, seed 0, deterministic hypothesis; and the fixture ``make_record``."""

import os
import random
import signal
from collections.abc import Callable

# Read when torch is imported, here and in the processes that tests start. There is one test process per core, and a
# pool of compiling processes takes longer to start than the tests' kernels to compile.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import torch

from dkl.attacks.autoattack import bounded
from dkl.records import Record
from tests import factories

torch.set_num_threads(1)
hypothesis.settings.register_profile("dkl", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("dkl")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs unless ``-m gpu`` asks for them, so that results do not depend on the machine.

    Shells start background jobs with SIGINT ignored; tests and the processes that they start take it as usual.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that short tests fill the remaining time of each core.

    Tests of endurance, and those of a process of their own on the pretend device, run only if ``-m`` names them.
    """
    for name in ("endurance", "pretend_device"):
        if name not in config.option.markexpr:
            left_out = [item for item in items if item.get_closest_marker(name)]
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)

    def minutes(item: pytest.Item) -> float:
        marker = item.get_closest_marker("slow")
        return 0 if marker is None else marker.kwargs.get("minutes", 1)

    items.sort(key=minutes, reverse=True)


@pytest.fixture(autouse=True)
def steady_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes as long as its images in bounded AutoAttack, which then samples on every machine."""
    monkeypatch.setattr(bounded, "pass_seconds", lambda model, x: float(len(x)))


@pytest.fixture(autouse=True)
def seed() -> int:
    """Start every test from seed 0, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Return ``tests.factories.make_record``."""
    return factories.make_record
