"""Part 2: seconds per epoch of adversarial training, memory, and the share of time that the GPU is busy."""

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console

from dkl.assembly import assemble, train
from dkl.config import compose_config
from dkl.console import Bar
from dkl.storage import checkpoint
from dkl.training.loop import train_epoch
from scripts.gpu_acceptance.steps import Setting

OFFICIAL = ("data=cifar10", "recipe=official", "loss=ikl", "averaging=none", "task.awp.start=1")
"""Five attack steps and AWP in every step."""

IMAGES = 50_000


def _options(setting: Setting, model: str, share: float, folder: str, *more: str) -> list[str]:
    full = [f"model={model}", f"data.train_size={128 * int(23_000 * share / 128)}", "data.test_size=200"]
    small = ["model=preact_resnet18_w16", "data.train_size=16", "data.test_size=10", "trainer.batch_size=8"]
    small += ["trainer.compile=false", "trainer.threads=1"]
    given = [*OFFICIAL, "trainer.epochs=2", "trainer.validate_every=0", f"trainer.device={setting.device.type}"]
    # In the small size nothing is compiled: that alone would take a minute. Steps that then agree share one run.
    return [*given, *more, f"paths.results={setting.out / folder}", *setting.pick(full, small)]


def epoch(model: str, options: Sequence[str], *, share: float = 1.0) -> Callable[[Setting], dict[str, Any]]:
    """Measure the second of two epochs on ``share`` of 23,000 images; the first one compiles."""

    def measure(setting: Setting) -> dict[str, Any]:
        cuda = setting.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        folder = train(compose_config("train", _options(setting, model, share, "speed", *options)))
        rows = checkpoint.read(folder / "checkpoint.pt")["rows"]
        rate = rows[-1]["images_per_second"]
        found = {"seconds per epoch of 50,000": round(IMAGES / rate, 2), "images per second": round(rate, 1)}
        found["loss"] = round(rows[-1]["loss"], 4)
        return found | ({"peak memory in GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)} if cuda else {})

    return measure


def busy(setting: Setting) -> dict[str, Any]:
    """Milliseconds and kernels per step, and the share of the time in which the GPU computes; PRN-18."""
    from torch.profiler import profile

    found: dict[str, Any] = {}
    for precision in ("float32", "bf16"):
        given = _options(setting, "preact_resnet18", 0.05, "busy", f"trainer.precision={precision}")
        run = assemble(compose_config("train", given))
        steps = len(run.batches)

        def once(run: Any = run, steps: int = steps, precision: str = precision) -> float:
            bar = Bar("", steps, 0, Console(file=io.StringIO()))
            started = time.perf_counter()
            state = run.state
            train_epoch(
                state.task, run.batches, state.optimizer, epoch=10, epochs=200, bar=bar, autocast=precision == "bf16"
            )
            return (time.perf_counter() - started) / steps

        once()
        seconds = once()
        found[f"{precision}, ms per step"] = round(1e3 * seconds, 2)
        if setting.device.type == "cuda":
            with profile() as trace:
                once()
            kernels = [event for event in trace.events() if str(event.device_type).endswith("CUDA")]
            found[f"{precision}, kernels per step"] = round(len(kernels) / steps)
            found[f"{precision}, busy"] = round(sum(event.device_time for event in kernels) / 1e6 / steps / seconds, 3)
    return found
