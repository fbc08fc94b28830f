"""The acceptance of a GPU: its steps and page, and the images that travel. Endurance tests try parts 1 and 2."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dkl.errors import UserError
from scripts.gpu_acceptance import steps
from scripts.gpu_acceptance.__main__ import main
from scripts.gpu_acceptance.page import write_page
from scripts.gpu_acceptance.parts import PARTS
from scripts.gpu_acceptance.prepare import slim, write_tiles
from scripts.gpu_acceptance.steps import Setting, Step, run_part
from scripts.gpu_acceptance.unpack import unpack


def fail(setting: Setting) -> dict[str, Any]:
    raise RuntimeError("no kernel image\nfor this device")


def test_a_part_reports_every_step_and_the_page_says_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMALL", raising=False)
    setting = Setting.here(tmp_path)
    long = Step("long", "2 s", lambda setting: {}, seconds=steps.SECONDS + 1)
    run_part(1, [Step("good", "1", lambda setting: {"a": 1}), Step("bad", "2 | 3", fail), long], setting)
    good, bad, left = json.loads((tmp_path / "part-1.json").read_text())["steps"]
    assert good["found"] == {"a": 1}
    assert bad["error"] == "RuntimeError: no kernel image"
    assert "for this device" in bad["traceback"]
    assert "are needed" in left["left_out"]
    data, page = write_page(tmp_path, "tried", tmp_path)
    text = page.read_text()
    assert "| good | 1 | a 1 |" in text
    assert r"| bad | 2 \| 3 | **failed**: RuntimeError: no kernel image |" in text
    assert json.loads(data.read_text())["parts"][0]["steps"][0] == good
    with pytest.raises(UserError, match="run the parts first"):
        write_page(tmp_path / "empty", "none", tmp_path)


def test_images_travel_unchanged(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sent = {}
    for split, count in (("train", 1001), ("test", 3)):
        sent[split] = draw.integers(0, 256, (count, 32, 32, 3), np.uint8), draw.integers(0, 10, count)
        write_tiles(*sent[split], tmp_path, split)
    unpack(tmp_path, tmp_path / "data")
    for split, (images, labels) in sent.items():
        with np.load(tmp_path / "data" / "cifar10" / f"{split}.npz") as found:
            assert np.array_equal(found["image"], images)
            assert np.array_equal(found["label"], labels)


def test_a_wheel_travels_without_what_is_not_needed(tmp_path: Path) -> None:
    wheel = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("net/a.py", "net/examples/b.pt"):
            archive.writestr(name, "x")
        archive.writestr("net-1.dist-info/RECORD", "net/a.py,,1\nnet/examples/b.pt,,1\n")
    slim(wheel, lambda name: "/examples/" not in name)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["net/a.py", "net-1.dist-info/RECORD"]
        assert archive.read("net-1.dist-info/RECORD") == b"net/a.py,,1\n"


def test_a_part_takes_at_most_eight_minutes_as_planned() -> None:
    for part in PARTS.values():
        assert sum(step.seconds for step in part) <= steps.SECONDS


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.slow if part == 3 else pytest.mark.endurance) for part in PARTS]
)
def test_every_part_runs_in_the_small_size(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        write_tiles(draw.integers(0, 256, (96, 32, 32, 3), np.uint8), np.arange(96) % 10, tmp_path, split)
    unpack(tmp_path, tmp_path / "data")
    monkeypatch.setenv("DKL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SMALL", "1")
    main(["part", str(part), str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / f"part-{part}.json").read_text())["steps"]
    assert {entry["step"]: entry["error"] for entry in found if "error" in entry} == {}
