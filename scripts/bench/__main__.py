"""Run the benchmarks: ``python -m scripts.bench [losses|pixels|step|… ...] [--rounds N] [--threads N]``.

Each prints a table, writes ``results/benchmarks/<name>.json`` and updates the README beside it. Together they take
about half an hour on 2 CPU cores, and 13 GB of memory. Other load on the machine changes the figures. On a GPU, epochs
of adversarial training follow, on a page of their own.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dkl.runtime.device import accelerator, describe
from scripts.bench import autoattack, bounded, data, distillation, losses, pixels, sharding, step
from scripts.bench.report import Result, save, show
from scripts.gpu_acceptance.page import write_page
from scripts.gpu_acceptance.parts import PARTS
from scripts.gpu_acceptance.steps import Setting, run_part

BENCHMARKS: dict[str, tuple[Callable[[int], Result], int]] = {
    "losses": (losses.run, 25),
    "pixels": (pixels.run, 5),
    "step": (step.run, 7),
    "distillation": (distillation.run, 15),
    "data": (data.run, 5),
    "autoattack": (autoattack.run, 1),
    "autoattack_large": (autoattack.run_large, 1),
    "bounded": (bounded.run, 1),
    "bounded_timed": (bounded.run_timed, 1),
    "sharding": (sharding.run, 1),
}


def main() -> None:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench", description="Compare dkl with the official implementation."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run, of {', '.join(BENCHMARKS)}; all if none"
    )
    defaults = ", ".join(f"{rounds} for {name}" for name, (_, rounds) in BENCHMARKS.items())
    parser.add_argument("--rounds", type=int, help=f"rounds of every measurement ({defaults})")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (2)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.threads < 1 or (options.rounds is not None and options.rounds < 1):
        parser.error("--rounds and --threads must be at least 1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise torch's profiler warns that it found no GPU
    torch.set_num_threads(options.threads)
    for name in options.names or BENCHMARKS:
        benchmark, rounds = BENCHMARKS[name]
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        torch.manual_seed(0)
        result = benchmark(options.rounds or rounds)
        show(result)
        print(f"{time.perf_counter() - started:.0f} s; written to {save(result)}\n", flush=True)
    if not options.names and accelerator() is not None:
        _measure_gpu()


def _measure_gpu() -> None:
    """Measure epochs of adversarial training on the GPU: part 2 of its acceptance, on a page of its own."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting.here(Path(folder))
        run_part(2, PARTS[2], setting)
        for path in write_page(Path(folder), re.sub(r"\W+", "-", describe(setting.device)).lower()):
            print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
