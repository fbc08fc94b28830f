"""Ctrl-C, SIGTERM and SIGHUP as exceptions, with time to save the state of the work.

Contexts nest. ``interruptible`` surrounds a command: a signal raises ``Interrupted`` at once. ``deferred`` surrounds
work that can save its state, or that waits for other processes: a signal is remembered, and raised when that is done,
at the latest after ``patience`` seconds. Handlers that another library has installed, such as submitit's, which
requeues a job of SLURM on SIGUSR2, keep their meaning: they are called instead of raising, after the state is saved.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the end of a job on a cluster, and a closed terminal, which Windows does not have."""

SAVING_SECONDS = 1.0
"""A state is saved on a signal if that takes less; otherwise the last checkpoint is where the run continues."""


class Interrupted(SystemExit):
    """SIGINT, SIGTERM or SIGHUP has arrived. The exit code is 128 + ``signum``; ``place`` says where the work is."""

    def __init__(self, signum: int, place: str = "", reported: bool = False) -> None:
        super().__init__(128 + signum)
        self.signum, self.place, self.reported = signum, place, reported

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str, bool]]:
        """Pickle it with its place: a launcher's worker sends it to the command."""
        return Interrupted, (self.signum, self.place, self.reported)

    def __str__(self) -> str:
        return (
            f"interrupted {self.place}; the same command continues there"
            if self.place
            else ("interrupted; the same command continues")
        )

    def report(self) -> None:
        """Print one line to stderr, once, in the first of several processes."""
        if not self.reported and os.environ.get("RANK", "0") == "0":
            print(self, file=sys.stderr, flush=True)
        self.reported = True


class _Raising:
    """Raises Interrupted at once; ``signum`` is 0 until then."""

    signum = 0

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if _importing(frame):  # an exception inside a library that starts in C++ would end in an abort
            Interrupted(signum).report()
            os._exit(128 + signum)
        raise Interrupted(signum)


def _importing(frame: FrameType | None) -> bool:
    """Whether ``frame`` is inside an import."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _is_ours(handler: object) -> bool:
    """Whether ``handler`` is Python's default or of this module, and not another library's."""
    default = (None, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    return handler in default or isinstance(getattr(handler, "__self__", None), Deferral | _Raising)


@contextmanager
def _handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Handle signals by ``handlers`` inside. In another thread than the main one, and if ignored, they stay as is."""
    # Under nohup, SIGINT is ignored on purpose.
    main = threading.current_thread() is threading.main_thread()
    fixed = (signal.SIG_IGN, None)  # None: installed by C code, and Python could not restore it
    own = {signum: new for signum, new in handlers.items() if main and signal.getsignal(signum) not in fixed}
    before = {signum: signal.signal(signum, handler) for signum, handler in own.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at once on SIGINT, SIGTERM and SIGHUP, unless another library handles them."""
    raising = _Raising()
    wanted = [signum for signum in ENDING if _is_ours(signal.getsignal(signum))]
    with _handling(dict.fromkeys(wanted, raising.handle)):
        try:
            yield
        except Exception:  # the signal may arrive in a library that turns any exception into one of its own
            if raising.signum:
                raise Interrupted(raising.signum) from None
            raise


class Deferral:
    """The signal that has arrived inside ``deferred``: ``signum``, or 0 if none has."""

    def __init__(self, patience: float, forward: bool) -> None:
        self.patience, self.forward = patience, forward
        self.signum, self._since = 0, 0.0
        self._before: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Remember the first signal; act on a later one, or on the timer's, once ``patience`` is over."""
        if not self.signum:
            self.signum, self._since = signum, time.monotonic()
            # The timer sends the signal again, because only a signal wakes a main thread that waits.
            self._timer = threading.Timer(self.patience, os.kill, (os.getpid(), signum))
            self._timer.daemon = True
            self._timer.start()
            if self.forward:
                self.forward_to_children()
        elif time.monotonic() - self._since >= self.patience:
            self.act(self.signum)

    def forward_to_children(self) -> None:
        """Send the signal to every process that this one has started."""
        for child in multiprocessing.active_children():
            if child.pid:
                os.kill(child.pid, self.signum)

    def act(self, signum: int) -> None:
        """Raise Interrupted, or call the handler of another library and, if it returns, go on."""
        self.close()
        self.signum = 0
        handler = self._before.get(signum)
        if callable(handler) and not _is_ours(handler):
            handler(signum, None)
        else:
            raise Interrupted(signum)

    def begin(self, before: Mapping[int, object]) -> None:
        """Note the handlers ``before`` this context."""
        self._before = dict(before)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def deferred(patience: float = SAVING_SECONDS, *, forward: bool = False) -> Iterator[Deferral]:
    """Remember SIGINT, SIGTERM and SIGHUP, and signals that another library handles, until the body calls ``act``.

    If the body has not called it ``patience`` seconds after the signal, it is interrupted. ``forward`` sends the signal
    to the processes that this one has started.
    """
    deferral = Deferral(patience, forward)
    wanted = [*ENDING]
    users = [signum for name in ("SIGUSR1", "SIGUSR2") if (signum := getattr(signal, name, None))]
    wanted += [signum for signum in users if callable(signal.getsignal(signum))]
    deferral.begin({signum: signal.getsignal(signum) for signum in wanted})
    try:
        with _handling(dict.fromkeys(wanted, deferral.handle)):
            yield deferral
            if deferral.signum:  # nothing was left to save: the body is complete
                deferral.act(deferral.signum)
    finally:
        deferral.close()


@contextmanager
def launching() -> Iterator[None]:
    """Around a launcher of Hydra: a signal goes to its workers, which save their state, and ends this process after."""
    with deferred(2 * SAVING_SECONDS, forward=True):
        yield


@contextmanager
def worker() -> Iterator[None]:
    """Around one job of a launcher: a signal raises Interrupted at once, and the job's line is printed.

    A process that a launcher has started for the job ends with the command.
    """
    if multiprocessing.current_process().name != "MainProcess":
        end_with_parent()
    with interruptible():
        try:
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
        signal.setitimer(signal.ITIMER_REAL, SAVING_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


@contextmanager
def waiting() -> Iterator[None]:
    """Around waiting for other processes in C code, where Python's handlers do not run: a signal ends this process.

    That is a second later and without cleaning up, unless the body has ended before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        for (signum,) in iter(lambda: os.read(reading, 1), b""):
            ours = signum in (signal.SIGINT, signal.SIGTERM) and _is_ours(signal.getsignal(signum))
            if ours and not ended.wait(SAVING_SECONDS):
                Interrupted(signum).report()
                os._exit(128 + signum)
        os.close(reading)

    before = signal.set_wakeup_fd(writing)
    threading.Thread(target=watch, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
