"""Records for tests of tables: the defaults of tests.factories, with names of methods and models that tables show."""

import csv
import io
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkl.config import compose_run, hashed
from dkl.manifests import Request, plan
from dkl.records import Flags, Record
from dkl.reporting.boards import Board
from dkl.reporting.formats import to_csv
from dkl.reporting.grouping import model_title
from tests import factories

"""Shared by all tests, because composing a configuration takes about 0.1 s."""


def make_record(**overrides: Any) -> Record:
    """Return a valid IKL-AT record of CIFAR-100; ``overrides`` replace fields."""
    defaults = {"method": "IKL-AT", "dataset": "cifar100", "architecture": "WideResNet-34-10", "budget": "own"}
    return factories.make_record(**{**defaults, **overrides})


def make_accuracy(**overrides: Any) -> Record:
    """Return a record without attacks, of a distilled ResNet-20."""
    teacher = {"task": {"teacher": {"name": "cifar_resnet56", "checkpoint": "resnet56.pth"}}}
    best = {"clean": 0.7, "top5": 0.92, "best": 0.71, "best_epoch": 230, "weights": "last epoch 240"}
    defaults = {"method": "IKL-KD", "architecture": "ResNet-20", "attacks": [], "training": teacher, **best}
    return make_record(**{**defaults, **overrides})


def make_seeds(robust: list[float], **overrides: Any) -> list[Record]:
    """Return one record per robust accuracy, of seeds 0, 1, …"""
    return [make_record(seed=seed, robust=value, **overrides) for seed, value in enumerate(robust)]


@cache
def trained(manifest: str, row: str, budget: str, *extra: str) -> dict[str, Any]:
    """Return what a record keeps of the configuration of a row's run at seed 0, with ``extra`` overrides."""
    job = plan(manifest, Request(seeds=(0,), budget=budget, row=row, overrides=extra))[-1]
    return {**hashed(compose_run(job.train).cfg), "data_sha256": "a" * 64}


def make_run(manifest: str, row: str, *, budget: str = "mini", seed: int = 0, **overrides: Any) -> Record:
    """Return an evaluation of a run of a manifest's row, of the weights that the run keeps."""
    content = trained(manifest, row, budget)
    content = content | {"seed": seed, "task": content["task"] | {"seed": seed}}
    kept = "average" if content["averaging"] else "last"
    defaults = {
        "id": "-".join([manifest, row, budget, str(seed), *map(str, overrides.values())]),
        "weights": "best epoch 1" if content["selection"]["every"] else f"{kept} epoch 2",
        "architecture": model_title(content["model"]["name"]),
        "dataset": content["data"]["name"],
    }
    fields = {**defaults, "budget": budget, "seed": seed, "training": content, "n": 10_000}
    return make_record(**{**fields, **overrides})


def cells(board: Board[Any], header: str) -> list[str]:
    """Return one column of the table for people."""
    table = board.table()
    return [row[table.header.index(header)] for row in table.rows]


def plain(board: Board[Any]) -> list[dict[str, str]]:
    """Read the board's CSV back: each row's cells by header."""
    return list(csv.DictReader(io.StringIO(to_csv(board.data()))))


def no_flags(record: Record) -> Flags:
    """Return the flags of a record without per-image flags."""
    return {}


def flags_of(right: Mapping[str, NDArray[np.bool_]]) -> Callable[[Record], Flags]:
    """Return a loader of flags: the images that are ``right``, by record id, are right under every attack."""
    return lambda record: dict.fromkeys(("clean", *record.attacks), right[record.id])
