"""Ctrl-C, SIGTERM and SIGHUP: a flag that long work looks at, then an exception that ends the command.

Contexts nest. ``interruptible`` surrounds a command: a signal raises ``Interrupted`` at once. ``deferred`` surrounds
work that can save its state, or that waits for other processes: a signal sets a flag, and the work ends when it has
looked at it, at the latest after ``patience`` seconds. Handlers of other libraries keep their meaning, such as
submitit's, which requeues a job of SLURM on SIGUSR2: they are called instead of raising, after the state is saved.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the end of a job on a cluster, and a closed terminal, which Windows does not have."""

USERS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals that mean something only if another library handles them."""

PATIENCE = 1.0
"""Seconds after a signal in which work may reach a place where it can save its state."""


class Interrupted(SystemExit):
    """A signal ends the command. The exit code is 128 + ``signum``; ``place`` says where the work continues."""

    def __init__(self, signum: int, place: str = "", reported: bool = False) -> None:
        super().__init__(128 + signum)
        self.signum, self.place, self.reported = signum, place, reported

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str, bool]]:
        """Pickle it with its place: a launcher's worker sends it to the command."""
        return Interrupted, (self.signum, self.place, self.reported)

    def __str__(self) -> str:
        place, there = (f" {self.place}", " there") if self.place else ("", "")
        return f"interrupted{place}; the same command continues{there}"

    def report(self) -> None:
        """Print one line to stderr, once, in the first of several processes."""
        if not self.reported and os.environ.get("RANK", "0") == "0":
            print(self, file=sys.stderr, flush=True)
        self.reported = True


class Flag:
    """The signal that asks the work to end: ``signum``, or 0. ``forward`` sends it to the processes started here.

    A second signal acts at once if ``patience`` seconds have passed since the first.
    """

    def __init__(self, patience: float, forward: bool = False) -> None:
        self.patience, self.forward = patience, forward
        self.signum, self.raised = 0, False
        self.foreign: dict[int, Handler] = {}
        """Handlers of other libraries, also if another flag has taken their place."""
        for signum in (*ENDING, *USERS):
            handler = signal.getsignal(signum)
            if isinstance(flag := getattr(handler, "__self__", None), Flag):
                handler = flag.foreign.get(signum)
            if callable(handler) and handler is not signal.default_int_handler:
                self.foreign[signum] = handler
        self._deadline, self._timer = 0.0, threading.Timer(0, lambda: None)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.signum:
            self.signum, self._deadline = signum, time.monotonic() + self.patience
            for child in multiprocessing.active_children() if self.forward else ():
                if child.pid:
                    os.kill(child.pid, signum)
            if self.patience:
                # The timer sends the signal again, because only a signal wakes a main thread that waits.
                self._timer = threading.Timer(self.patience, os.kill, (os.getpid(), signum))
                self._timer.daemon = True
                self._timer.start()
                return
        if time.monotonic() >= self._deadline:
            while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
                frame = frame.f_back
            if self.signum not in self.foreign and frame is not None:
                # Inside an import: an exception in a library that starts in C++ would end in an abort.
                Interrupted(self.signum).report()
                os._exit(128 + self.signum)
            self.act(self.signum)

    def be_patient(self) -> None:
        """Let the work save its state for as long as it takes; a further signal still ends it."""
        self._timer.cancel()

    def act(self, signum: int) -> None:
        """Raise Interrupted, or call the handler of another library and, if it returns, go on."""
        self._timer.cancel()
        if handler := self.foreign.get(signum):
            self.signum = 0
            handler(signum, None)
        else:
            self.raised = True
            raise Interrupted(signum)


@contextmanager
def deferred(patience: float = PATIENCE, *, forward: bool = False) -> Iterator[Flag]:
    """Let signals set a flag inside; the body looks at it and calls ``act``, or ends.

    If it has done neither ``patience`` seconds after the signal, it is interrupted.
    """
    flag = Flag(patience, forward)
    wanted = [*ENDING, *(signum for signum in USERS if signum in flag.foreign)]
    # Under nohup, SIGHUP is ignored on purpose. None is a handler of C code, which Python could not restore. Handlers
    # can only be set in the main thread.
    kept = (signal.SIG_IGN, None)
    main = threading.current_thread() is threading.main_thread()
    wanted = [signum for signum in wanted if main and signal.getsignal(signum) not in kept]
    before = {signum: signal.signal(signum, flag.handle) for signum in wanted}
    try:
        yield flag
        if flag.signum:  # nothing was left to save: the body is complete
            flag.act(flag.signum)
    except Exception:  # the signal may arrive in a library that turns any exception into one of its own
        if flag.raised:
            raise Interrupted(flag.signum) from None
        raise
    finally:
        flag.be_patient()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def interruptible() -> AbstractContextManager[Flag]:
    """Raise Interrupted inside at once on SIGINT, SIGTERM and SIGHUP, unless another library handles them."""
    return deferred(0)


def launching() -> AbstractContextManager[Flag]:
    """Around a launcher of Hydra: a signal goes to its workers, which save their state, and ends this process after."""
    return deferred(2 * PATIENCE, forward=True)


@contextmanager
def worker() -> Iterator[None]:
    """Around one job of a launcher: a signal raises Interrupted at once, and the job's line is printed.

    A process that a launcher has started for the job ends with the command.
    """
    if multiprocessing.current_process().name != "MainProcess":
        end_with_parent()
    try:
        with interruptible():  # inside, because it restores a signal that a library made an exception of its own
            yield
    except Interrupted as stop:
        stop.report()
        raise


def end_with_parent() -> None:
    """Interrupt this process when the one that started it has ended, also if that was killed; at most 1.5 s later.

    A thread compares the parent's number twice a second, for any way of starting processes.
    """
    started_by = multiprocessing.parent_process()
    parent = os.getppid() if started_by is None else started_by.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        # The main thread may wait in a library for a process that is gone, or end slowly: SIGALRM kills without Python.
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
