"""Every field of the schema has a line of documentation, which help prints; every number has a range, stated there.

The ranges are those of the annotations; here every one of them is checked, and that each part of a composed
configuration is held to them.
"""

import math
from dataclasses import fields, is_dataclass
from typing import Annotated, get_type_hints

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from dkl.assembly import preflight
from dkl.assembly.training import unusual_settings
from dkl.cli.help import page
from dkl.config import TrainConfig, compose_config, schema, typed
from dkl.config.compose import field_lines
from dkl.errors import UserError
from dkl.validation import MEAN, TEMPERATURE, Range, check, hints, number_type, problem, settings
from tests.configs.common import CONFIGS

SCHEMA = [kind for kind in vars(schema).values() if is_dataclass(kind) and kind.__module__ == schema.__name__]


@pytest.mark.parametrize("config", SCHEMA, ids=lambda config: config.__name__)
def test_every_field_has_one_line_and_every_number_a_range(config: type) -> None:
    lines = field_lines(config)
    assert set(lines) == {field.name for field in fields(config)}
    known = get_type_hints(config, include_extras=True)
    for name, line in lines.items():
        assert "\n" not in line
        assert 5 < len(line) <= 120
        assert line.endswith(".")
        kind, allowed, _, _ = number_type(known[name])
        assert kind not in (int, float) or (allowed is not None and str(allowed) in line), name


def test_help_prints_every_value_with_its_line() -> None:
    shown = {
        tuple(part.strip() for part in text.split("  # "))
        for command in ("train", "evaluate")
        for text in page(command).splitlines()
        if "  # " in text
    }
    assert ("batch_size: 128", field_lines(schema.TrainerConfig)["batch_size"]) in shown
    assert ("shape: [1, 8, 8]", field_lines(schema.DataConfig)["shape"]) in shown
    assert ("attacks: null", field_lines(schema.EvaluateConfig)["attacks"]) in shown
    lines = {line for _, line in shown}
    for config in SCHEMA:
        assert set(field_lines(config).values()) <= lines


def targets() -> list[str]:
    """Every ``_target_`` in the YAML files, at any depth."""

    def within(node: object) -> list[str]:
        if not isinstance(node, dict):
            return []
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [name for item in node.values() for name in within(item)]

    files = [OmegaConf.to_container(OmegaConf.load(path)) for path in CONFIGS.rglob("*.yaml")]
    return sorted({name for content in files for name in within(content)})


@pytest.mark.parametrize("target", targets())
def test_every_number_of_a_constructor_has_a_range(target: str) -> None:
    for name, annotation in hints(get_object(target)).items():
        if number_type(annotation).kind in (int, float) and name != "return":
            assert number_type(annotation).allowed is not None, f"{target}: {name}"


@pytest.mark.parametrize("config", SCHEMA, ids=lambda config: config.__name__)
def test_values_outside_the_range_of_a_field_are_refused_in_one_line(config: type) -> None:
    known = get_type_hints(config, include_extras=True)
    for field in fields(config):
        kind, allowed, sequence, _ = number_type(known[field.name])
        if kind not in (int, float) or allowed is None:
            continue
        outside = [allowed.low - 1, allowed.high * 10 + 1, 10**20, math.nan, math.inf, -math.inf, "x", True]
        outside += [1.5] if kind is int else []
        for value in outside:
            with pytest.raises(UserError) as refused:
                check(settings(config, {field.name: [value] if sequence else value}, "place"))
            assert str(refused.value).startswith(f"place.{field.name}=")
            assert str(allowed) in str(refused.value)
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("allowed", "text", "inside", "outside"),
    [
        (Range(0, 1, below=True), "in [0, 1)", [0, 0.999], [-1e-9, 1]),
        (Range(0, 1, above=True), "in (0, 1]", [1e-9, 1], [0, 1.001]),
        (Range(1, 1e6), "from 1 to 1e6", [1, 1e6], [0, 1e6 + 1]),
        (Range(0, 2**32 - 1), "from 0 to 4294967295", [0, 2**32 - 1], [-1, 2**32]),
        (TEMPERATURE, "above 0 and at most 10000", [1e-9, 10_000], [0, 10_001]),
    ],
)
def test_a_range_and_its_text(allowed: Range, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(allowed) == text
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in [*outside, math.nan, math.inf, -math.inf])


def test_a_flag_is_no_number_and_a_number_no_flag() -> None:
    assert problem(bool, 1) == problem(bool, "yes") == "true or false"
    assert problem(bool, False) is None
    assert problem(int, True) == "a whole number"
    assert problem(int | None, None) is None
    assert problem(int, None) == "a whole number"


def test_values_on_the_scale_of_gray_levels_are_recognized() -> None:
    annotation = Annotated[list[float], MEAN]
    assert problem(annotation, [0.5, 0.25]) is None
    assert "did you mean [0.5, 0.25], which is that divided by 255?" in str(problem(annotation, [127.5, 63.75]))
    assert problem(annotation, [300.0, 1.0]) == "numbers in [0, 1]"


STEP = ["schedule=step", "trainer.epochs=10"]
PIXELS = ["task=segmentation", "data=scenes", "model=pspnet_resnet10_w16"]
CIFAR = ["data=cifar10", "model=preact_resnet18_w16"]

REFUSED = [
    (
        [*STEP, "schedule.milestones=[5,8]"],
        "are shares of training in (0, 1), not epochs: write [0.5, 0.8] for these",
    ),
    ([*STEP, "schedule.milestones=[0.5,0.2]"], "schedule.milestones=[0.5, 0.2] must rise"),
    ([*STEP, "schedule.milestones=[0.5,1]"], "schedule.milestones=[0.5, 1] must be numbers in (0, 1)"),
    ([*STEP, "schedule.milestones=0.5"], "schedule.milestones=0.5 must be a list of numbers in (0, 1)"),
    ([*STEP, "schedule.warmup_epochs=11"], "schedule.warmup_epochs=11 is more than trainer.epochs=10"),
    (["schedule=one_cycle", "schedule.pct_start=2"], "schedule.pct_start=2 must be a number in [0, 1)"),
    (["selection.holdout=9", "selection.every=31"], "selection.every=31 is more than trainer.epochs=30"),
    (["task.awp.gamma=0.01", "task.awp.start=31"], "task.awp.start=31 is more than trainer.epochs=30"),
    (["task.natural_first=3"], "task.natural_first=3 must be true or false"),
    (["attack.steps=1.5"], "attack.steps=1.5 must be a whole number"),
    (
        ["attack=official_ikl", "attack.objective.wmse_weight=-1"],
        "attack.objective.wmse_weight=-1 must be a number from 0",
    ),
    (["averaging=ema", "averaging.decay=1"], "averaging.decay=1 must be a number in [0, 1)"),
    (["loss=gkl", "loss.gamma=inf"], "loss.gamma=inf must be a number from 0 to 100"),
    (["trainer.batch_size=99999999999999999999"], "trainer.batch_size=99999999999999999999 must be a whole number"),
    (["evaluation.norm=l2", "evaluation.eps=128", "attack.norm=l2"], "evaluation.eps=128 is above 8.0, the largest L2"),
    ([*CIFAR, "data.mean=[125,123,114]", "data.std=[63,62,67]"], "did you mean [0.4902, 0.4824, 0.4471]"),
    ([*CIFAR, "+model.mean=[0.5]", "+model.std=[0.5]"], "must have one value per channel, of which there are 3"),
    ([*PIXELS, "data.augment.scale=[2,1]"], "data.augment.scale=[2.0, 1.0] must be two factors, the smaller first"),
    ([*PIXELS, "+data.source.digits_per_scene=-1"], "data.source.digits_per_scene=-1 must be a whole number from 0"),
    (["data.interpolation=cubic"], "data.interpolation=cubic must be bilinear, bicubic, square or none"),
    (["data=imagenet", "+data.source.train=null"], "leave it out"),
    (["data.augment.interpolation=bicubic"], "data.augment.interpolation=bicubic must be bilinear or random"),
    ([*CIFAR, "+model.drop_path_rate=2"], "model.drop_path_rate=2 must be a number in [0, 1)"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda item: item[-1] if isinstance(item, list) else "")
def test_a_composed_configuration_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        preflight(compose_config("train", overrides))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_outside_the_usual_values_are_found() -> None:
    def unusual(*overrides: str) -> list[str]:
        return unusual_settings(typed(compose_config("train", overrides), TrainConfig))

    assert unusual() == []
    assert unusual("optimizer.lr=20", "loss.wmse_weight=5000", "task.prior_temperature=0.01") == [
        "optimizer.lr=20.0 (usually from 0 to 1)",
        "task.prior_temperature=0.01 (usually from 0.1 to 1000)",
        "loss.wmse_weight=5000 (usually from 0 to 100)",
    ]
