"""Work in forks of a process that has imported everything: starting one takes no time."""

import io
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dkl.runtime.interruption import ENDING, worker

Work = Callable[[], object]

PATIENCE = 300.0
"""Seconds after which a process that should have ended counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: the signal that killed it), what it printed to stderr, and when."""

    status: int
    err: str
    seconds: float

    def is_clean(self, signum: int) -> bool:
        """Whether ``signum`` ended it as it should: killed, or with one last line and the exit code."""
        if signum == signal.SIGKILL:
            return self.status == -signum
        # Only the starts of lines count: a folder's name may contain the word.
        lines = [
            number for number, line in enumerate(reversed(self.err.splitlines())) if line.startswith("interrupted")
        ]
        return self.status == 128 + signum and lines == [0] and "Traceback" not in self.err


def fork(work: Work, log: Path, environment: dict[str, str] | None = None) -> int:
    """Start ``work`` in a fork, with signals handled as by the command; stderr is ``log``. Returns its number.

    Signals wait until the work begins, and change nothing after its end: there they would kill without a line.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    if number := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        return number
    status = 1
    try:
        os.environ.update(environment or {})
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)  # pytest has its own
        sys.stdout = io.StringIO()
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        with worker():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            work()
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # without the exit handlers of the process that was forked


def wait(number: int, deadline: float) -> int:
    """Wait for process ``number`` and return how it ended; kill it at ``deadline``."""
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.005)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(
    works: Sequence[Work],
    folder: Path,
    after: float | None = None,
    signum: int = 0,
    only: int | None = None,
    patience: float = PATIENCE,
) -> list[Ended]:
    """Run one process per entry of ``works``; several form a group, as under torchrun.

    ``signum`` is sent ``after`` seconds, to all processes or to number ``only`` of them. Processes that have not ended
    ``patience`` seconds later are killed. Returns how each ended.
    """
    world, port = len(works), _free_port()
    logs = [folder / f"stderr{number}.txt" for number in range(world)]
    group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = time.monotonic()
    numbers = [
        fork(work, log, group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {})
        for rank, (work, log) in enumerate(zip(works, logs, strict=True))
    ]
    if after is not None:
        time.sleep(after)
        for rank, number in enumerate(numbers):
            if only in (None, rank):
                os.kill(number, signum)  # a process that has ended is not reaped yet, so its number is still its own
    statuses = [wait(number, time.monotonic() + patience) for number in numbers]
    seconds = time.monotonic() - started
    return [Ended(status, log.read_text(), seconds) for status, log in zip(statuses, logs, strict=True)]
