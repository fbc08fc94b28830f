"""Records as tables meet them: tests.factories' defaults, with the names of methods and models that tables show."""

from typing import Any

from dkl.records import Record
from tests import factories


def make_record(**overrides: Any) -> Record:
    """A valid IKL-AT record of CIFAR-100; ``overrides`` replace fields."""
    defaults = {"method": "IKL-AT", "dataset": "cifar100", "architecture": "wrn34_10", "budget": "own"}
    return factories.make_record(**{**defaults, **overrides})


def make_seeds(robust: list[float], **overrides: Any) -> list[Record]:
    """One record a robust accuracy, of seeds 0, 1, …"""
    return [make_record(seed=seed, robust=value, **overrides) for seed, value in enumerate(robust)]
