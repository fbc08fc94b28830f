"""docs/differences.md names tests that exist and switches that compose."""

import re

from dkl.config import compose_config
from dkl.manifests import load
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "differences.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
SWITCH = re.compile(r"`([a-z_.]+=[a-z0-9_.]+)`")


def test_named_tests_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 15
    assert not {name for name in named if not (ROOT / name).exists()}


def test_named_switches_compose() -> None:
    found = {switch for row in ROWS for cell in row for switch in SWITCH.findall(cell)}
    assert {"attack.schedule=as_intended", "averaging=ema", "trainer.batch_norm_share=4"} <= found
    bases = {"task.teacher": ["recipe=kd_strong", "data=imagenet"], "task.masked": ["recipe=apd", "data=ade20k"]}
    bases["task.prototype"] = bases["task.masked"]
    bases["task.natural"] = ["recipe=ard_cifar10", "data=cifar10", "task.teacher.name=small_cnn"]
    compose_config("evaluate", ["package=true"])  # the one switch of dkl evaluate
    for switch in found - {"package=true"}:
        base = next((base for start, base in bases.items() if switch.startswith(start)), ["recipe=official"])
        compose_config("train", [*base, switch])


def test_gkl_on_cifar10_has_the_temperature_that_its_script_meant() -> None:
    row = next(row for row in load("official-extra").rows if row.name == "cifar10-gkl")
    assert "task.prior_temperature=1" in row.overrides
