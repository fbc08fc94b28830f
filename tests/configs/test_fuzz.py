"""Any configuration trains, or is refused in one line.

A configuration is a choice of every group, on tiny images and small networks, with a few numbers anywhere inside or
outside their ranges. A task gets what it needs: few labels, masks, a teacher. The configuration is trained for one
epoch of two steps, with averaging, selection and checkpoints as they come.
"""

import json
import math
import secrets
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.assembly import train
from dkl.assembly.parts import settings_of
from dkl.config import TrainConfig, compose_config, typed
from dkl.config.overrides import explain
from dkl.errors import UserError, first_line
from dkl.models import create_model
from dkl.validation import Setting, fields_of, number_type
from tests.configs.common import CONFIGS, FEW_LABELS, names
from tests.reliability import write_report

CHOICES = {
    "task": names("task"),
    "loss": [None] * 60 + names("loss"),
    "attack": [None] * 60 + names("attack"),
    "averaging": names("averaging"),
    "schedule": names("schedule"),
    "model": ["small_cnn", "cifar_resnet8"],
}
"""Group -> its choices; None leaves the choice to the task, and most tasks refuse most others."""

MASKS = ["data=scenes", "data.shape=[3,24,32]", "data.source.train_size=16", "data.source.test_size=8"]
"""Overrides of the tasks that label pixels, with the only network for them here."""
PIXEL_NETWORK = "pspnet_resnet10_w16"

TINY = ["trainer.epochs=1", "trainer.batch_size=8", "trainer.threads=1", "evaluation.batch_size=8"]

IMAGES = {
    "_target_": "dkl.data.noisy_patterns",
    **{"shape": [1, 8, 8], "num_classes": 10, "train_size": 16, "test_size": 8},
}

COSTLY = {
    *("attack.steps", "trainer.epochs", "trainer.workers", "trainer.threads", "data.augment.crop_padding"),
    *("data.augment.repeats", "data.num_classes", "data.shape", "model.num_classes", "task.num_classes"),
    *("model.in_chans", "data.source.train_size", "data.source.test_size", "data.augment.scale"),
    *("data.unlabeled.ratio", "trainer.steps_per_epoch", "trainer.batch_size", "task.prototype_width"),
}
"""Numbers whose largest values take minutes or gigabytes: here they stay small, or are outside their range."""

ALONE = (
    *("trainer.devices", "task.guide", "task.teacher", "task.shape", "task.ignore_index"),
    *(f"data.source.{name}" for name in ("shape", "size", "num_classes", "ignore_index")),
)
"""Numbers that start processes, or belong to the images and networks that this test gives."""

EXAMPLES = 3000
"""Examples of the test of endurance."""

OUTSIDE = st.sampled_from([-1, -0.5, 1.5, 10**20, 1e300, math.nan, math.inf, -math.inf, "x", True, None, [], [0.5, 2]])


@cache
def composed(choices: tuple[str, ...]) -> DictConfig:
    """Composing takes longer than two steps of training; examples with the same choices share it."""
    cfg = compose_config("train", [*choices, *TINY])
    if cfg.data.ignore_index is None:
        cfg.data.source = IMAGES
    return cfg


def numbers(cfg: DictConfig) -> Iterator[Setting]:
    """Every number of a configuration, with its type and range."""
    config = typed(cfg, TrainConfig)
    yield from (item for item in fields_of(config) if number_type(item.annotation).kind)
    for key, node in {**vars(config), "data.source": config.data.source}.items():
        if isinstance(node, Mapping):
            copies = (f"{key}.loss", f"{key}.attack") if key == "task" else ()
            for item in settings_of(node, key):
                if number_type(item.annotation).kind and not item.key.startswith(copies):
                    yield item


def values(setting: Setting, outside: bool) -> st.SearchStrategy[Any]:
    """Values in the range of a setting and at its ends; half of them outside if ``outside``."""
    kind, allowed, sequence, _ = number_type(setting.annotation)
    if kind is bool:
        return st.booleans()
    assert allowed is not None
    low, high = allowed.low, min(allowed.high, 3.0) if setting.key in COSTLY else allowed.high
    inside: st.SearchStrategy[Any] = st.integers(int(low), int(min(high, 100))) | st.just(int(high))
    if kind is float:
        inside = st.floats(low, high) | st.floats(low, min(high, 2.0)) | st.sampled_from([low, high])
    inside = st.lists(inside, min_size=1, max_size=3) if sequence else inside
    return inside | OUTSIDE if outside else inside


@st.composite
def configurations(draw: st.DrawFn) -> tuple[DictConfig | UserError, list[str]]:
    """A configuration, or the error that composing it raises; and its overrides."""
    picked = {group: draw(st.sampled_from(options)) for group, options in CHOICES.items()}
    dense = picked["task"].startswith("segmentation")
    picked |= {"model": PIXEL_NETWORK} if dense else {}
    picked |= {"model": "cifar_resnet8"} if picked["task"] in ("fitnet", "reviewkd") else {}
    overrides = [f"{group}={choice}" for group, choice in picked.items() if choice is not None]
    overrides += MASKS if dense else FEW_LABELS if picked["task"] in ("fixmatch", "mean_teacher") else []
    if "distillation" in (CONFIGS / "task" / f"{picked['task']}.yaml").read_text().lower():
        overrides.append(f"task.teacher.name={PIXEL_NETWORK if dense else 'cifar_resnet8'}")
    try:
        cfg = composed(tuple(overrides)).copy()
        known = [item for item in numbers(cfg) if not item.key.startswith(ALONE)]
        outside = draw(st.integers(0, 3)) == 0
        for setting in draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda item: item.key)):
            value = draw(values(setting, outside))
            overrides.append(f"{setting.key}={value}")
            OmegaConf.update(cfg, setting.key, value)
    except (HydraException, OmegaConfBaseException) as error:
        return explain("train", error), overrides
    return cfg, overrides


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of untrained weights for the distillation tasks."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, classes, channels in (("cifar_resnet8", 10, 1), (PIXEL_NETWORK, 11, 3)):
        torch.save(create_model(name, classes, channels).state_dict(), folder / f"{name}.pt")
    return folder


def refusal(cfg: DictConfig | UserError, teachers: Path, results: Path) -> str | None:
    """Train ``cfg``; returns the message if it is refused. What it has trained has finite metrics."""
    try:
        if isinstance(cfg, UserError):
            raise cfg
        cfg.paths.results = str(results)
        if "teacher" in cfg.task:
            cfg.task.teacher.checkpoint = str(teachers / f"{cfg.task.teacher.name}.pt")
        lines = (train(cfg) / "metrics.jsonl").read_text().splitlines()
        assert all(math.isfinite(value) for line in lines for value in json.loads(line).values()), lines
    except UserError as error:
        message = str(error)
        assert "\n" not in message, message
        assert 10 < len(message) < 1000, message
        return message
    finally:
        shutil.rmtree(results / "runs", ignore_errors=True)
    return None


SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=15, suppress_health_check=SLOW)
@given(example=configurations())
def test_any_configuration_trains_or_is_refused_in_one_line(
    teachers: Path, tmp_path: Path, example: tuple[DictConfig | UserError, list[str]]
) -> None:
    cfg, overrides = example
    note(" ".join(overrides))
    refusal(cfg, teachers, tmp_path)


@pytest.mark.endurance
def test_thousands_of_configurations_train_or_are_refused(teachers: Path, tmp_path: Path) -> None:
    """Goes on after a fault; writes its figures so far to results/reliability after every 50 examples."""
    chosen, started = secrets.randbelow(2**32), time.monotonic()
    ended: Counter[str] = Counter()
    faults: dict[str, list[str]] = {}

    @seed(chosen)
    @settings(max_examples=EXAMPLES, derandomize=False, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(example=configurations())
    def try_one(example: tuple[DictConfig | UserError, list[str]]) -> None:
        cfg, overrides = example
        try:
            ended["refused in one line" if refusal(cfg, teachers, tmp_path) else "trained"] += 1
        except Exception as error:
            ended["faults"] += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            faults.setdefault(f"{type(error).__name__} at {place.name}: {first_line(error)}", overrides)
        if ended.total() % 50 == 0:
            write()

    def write() -> None:
        figures = {"examples": ended.total(), **ended, "faults": ended["faults"], "distinct_faults": faults}
        write_report("configurations", figures | {"seed": chosen, "seconds": round(time.monotonic() - started, 1)})

    try_one()
    write()
    assert not faults
