"""Time variants of one computation side by side, and count the memory that a call allocates.

Variants take turns within each round, in another order each round, so that other load on the machine affects all of
them alike. Medians show what to expect, minima what the code can reach.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from dkl.console import bar

Call = Callable[[], object]

SAMPLE_SECONDS = 0.05  # a sample repeats a quick call for about this long
FEWEST_CALLS = 5  # large tensors get fresh pages in every call, so one call per sample would be noise
SLOW_SECONDS = 5.0  # a slower call is timed once per sample, in two rounds only


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: one sample per round, each the mean of ``calls`` consecutive calls."""

    samples: list[float]
    calls: int

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def minimum(self) -> float:
        return min(self.samples)


def _sample(call: Call, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def _calls(seconds: float) -> int:
    """Number of calls of ``seconds`` each in one sample."""
    if seconds > SAMPLE_SECONDS * 4:
        return 1
    return max(FEWEST_CALLS, round(SAMPLE_SECONDS / seconds))


def alternate(variants: Mapping[str, Call], rounds: int) -> dict[str, Timing]:
    """Time every variant in ``rounds`` rounds, after one call to warm up and one to estimate its duration."""
    first: dict[str, float] = {}
    for name, call in variants.items():
        first[name] = _sample(call, 1)
        if first[name] < SLOW_SECONDS:
            first[name] = _sample(call, 1)
    calls = {name: _calls(seconds) for name, seconds in first.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    with bar("   rounds", rounds, console=Console()) as progress:
        for index in range(rounds):
            turn = index % len(names)
            for name in names[turn:] + names[:turn]:
                if first[name] < SLOW_SECONDS or index < 2:
                    samples[name].append(_sample(variants[name], calls[name]))
            progress.advance()
    return {name: Timing(samples[name], calls[name]) for name in variants}


def peak_bytes(call: Call) -> int:
    """Peak number of bytes that ``call`` allocates beyond what existed before, from the profiler's allocations."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = peak = 0
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    if not peak:
        raise RuntimeError("the profiler of this torch recorded no allocation, so there is no peak to report")
    return peak
