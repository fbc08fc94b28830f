"""On a second kind of device evaluation finds the CPU's flags, and runs continue on another kind of device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dkl.assembly import assemble, train
from dkl.config import compose_config
from dkl.evaluation import evaluate
from dkl.records import load, load_flags
from dkl.storage import checkpoint
from dkl.training.state import RunState
from tests.device.cases import overrides
from tests.evaluation.common import tiny_run
from tests.training.common import assert_equal, comparable

pytestmark = pytest.mark.pretend_device

IKL = "IKL, AWP, step average, selection"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, whose images are classified correctly more often than not."""
    return tiny_run(tmp_path_factory.mktemp("run"), "data.test_size=20", "trainer.device=cpu")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [*overrides("masks", {}), f"paths.results={tmp_path_factory.mktemp('run')}", "trainer.device=cpu"]
    return train(compose_config("train", settings))


def assert_same_flags(run: Path, device: str, results: Path, *protocol: str) -> None:
    found = {}
    for one in ("cpu", device):
        given = [f"run={run}", f"paths.results={results / one}", f"device={one}", "threads=1", *protocol]
        path = evaluate(compose_config("evaluate", given))
        found[one] = load_flags(path)
        assert load(path).hardware["device"] == one
    assert found["cpu"].keys() == found[device].keys()
    for name, flags in found["cpu"].items():
        assert np.array_equal(flags, found[device][name]), name


@pytest.mark.parametrize(
    "protocol",
    [
        ("attacks=standard", "eps=0.12", "n=5"),
        ("attacks=[square,fab-t,apgd-t]", "eps=0.8", "norm=l2", "n=2"),
        ("attacks=[pgd-3,cw-3]", "eps=0.1"),
        ("attacks=none",),
    ],
    ids=" ".join,
)
def test_flags_equal_those_of_the_cpu(
    protocol: tuple[str, ...], classifier: Path, pretend: str, tmp_path: Path
) -> None:
    assert_same_flags(classifier, pretend, tmp_path, *protocol)


def test_pixels_equal_those_of_the_cpu(segmenter: Path, pretend: str, tmp_path: Path) -> None:
    assert_same_flags(segmenter, pretend, tmp_path, "attacks=none")


def test_a_run_continues_on_another_kind_of_device(
    pretend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch on the device, one on the CPU, one on the device: the noise is drawn anew at each crossing."""
    save, results = RunState.save, tmp_path / "results"

    def stop(self: RunState, path: Path) -> None:
        save(self, path)
        if self.epoch < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunState, "save", stop)
    for device in (pretend, "cpu", pretend):
        given = overrides(IKL, {}, "trainer.epochs=3", f"trainer.device={device}", f"paths.results={results}")
        if device == pretend and list(results.glob("runs/*/checkpoint.pt")):
            folder = train(compose_config("train", given))
        else:
            with pytest.raises(KeyboardInterrupt):
                train(compose_config("train", given))
    content = checkpoint.read(folder / "checkpoint.pt")
    assert content["epoch"] == 3
    assert all(torch.isfinite(value).all() for value in content["model"].values())


def test_weights_cross_devices_unchanged(pretend: str, tmp_path: Path) -> None:
    """A finished run that another device reads again writes the same checkpoint."""
    given = overrides(IKL, {}, f"trainer.device={pretend}", f"paths.results={tmp_path}")
    folder = train(compose_config("train", given))
    before = comparable(folder)
    for device in ("cpu", pretend):
        run = assemble(compose_config("train", [*given, f"trainer.device={device}"]))
        run.state.load(folder)
        run.state.save(folder / "checkpoint.pt")
    after = comparable(folder)
    for content in (before, after):
        content.pop("rng")
        content["task"].pop("noise")
        content["task"].pop("device")
        content["config"].pop("trainer")
    assert_equal(after, before)
