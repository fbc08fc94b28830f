"""Every field of the schema has a line of documentation, and the help pages print it beside the default."""

from dataclasses import fields, is_dataclass

import pytest

from dkl.cli.help import page
from dkl.config import schema
from dkl.config.compose import field_lines

CONFIGS = [kind for kind in vars(schema).values() if is_dataclass(kind) and kind.__module__ == schema.__name__]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_has_one_line(config: type) -> None:
    lines = field_lines(config)
    assert list(lines) == [field.name for field in fields(config)]
    for line in lines.values():
        assert "\n" not in line
        assert 5 < len(line) <= 120
        assert line.endswith(".")


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
    for config in CONFIGS:
        assert set(field_lines(config).values()) <= lines
