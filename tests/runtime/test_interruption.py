"""Signals become exceptions with a place and an exit code, after the state is saved, and other handlers keep theirs."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

import pytest

from dkl.assembly import train
from dkl.config import run_folder
from dkl.runtime.distributed import process_group
from dkl.runtime.interruption import Flag, Interrupted, deferred, end_with_parent, interruptible, worker
from dkl.storage import checkpoint
from dkl.training import fit as fitting
from dkl.training.fit import Run
from dkl.training.loop import EpochSums
from tests.training.common import assert_equal, comparable, make_config

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No test leaves a handler behind; a hang-up counts here although the tests themselves may run under nohup."""
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    before = [signal.getsignal(signum) for signum in watched]
    yield
    after = [signal.getsignal(signum) for signum in watched]
    signal.signal(signal.SIGHUP, outside)
    assert after == before


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_signal_raises_at_once_with_its_exit_code(signum: int, code: int) -> None:
    with pytest.raises(Interrupted) as stop, interruptible():  # noqa: PT012 - the signal arrives inside
        send(signum)
        time.sleep(5)
    assert stop.value.code == code


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_deferred_signal_lets_the_body_finish(signum: int, code: int) -> None:
    finished = []
    with pytest.raises(Interrupted) as stop, deferred() as deferral:  # noqa: PT012 - the signal arrives inside
        send(signum)
        send(signum)  # as from a terminal and from torchrun
        finished.append(deferral.signum)
    assert (stop.value.code, finished) == (code, [signum])


def test_patience_ends_even_while_the_process_waits() -> None:
    started = time.monotonic()
    with pytest.raises(Interrupted), deferred(0.1):  # noqa: PT012 - the signal arrives inside
        send(signal.SIGTERM)
        time.sleep(30)
    assert time.monotonic() - started < 10


def test_a_handler_of_another_library_is_called_after_the_body_has_saved() -> None:
    """As submitit's, which requeues a job on SIGUSR2 and ignores SIGTERM."""
    events: list[object] = []

    def foreign(signum: int, frame: FrameType | None) -> None:
        events.append(signum)

    before = {signum: signal.signal(signum, foreign) for signum in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        for signum in before:
            with interruptible(), deferred() as deferral:
                send(signum)
                events.append("saved")
                deferral.act(deferral.signum)
                events.append("goes on")
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert events == ["saved", signal.SIGTERM, "goes on", "saved", signal.SIGUSR2, "goes on"]


def test_the_line_is_printed_once_and_by_the_first_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = pickle.loads(pickle.dumps(Interrupted(signal.SIGINT, "at epoch 7 of 20")))
    stop.report()
    stop.report()
    assert capsys.readouterr().err == "interrupted at epoch 7 of 20; the same command continues there\n"
    monkeypatch.setenv("RANK", "1")
    Interrupted(signal.SIGINT).report()
    assert capsys.readouterr().err == ""


def stop_after(
    monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, stop: Callable[[], object], save_every: float = 300
) -> None:
    """Let ``stop`` happen during a step of an epoch, both counted from 1."""
    after_step = fitting._after_step

    def patched(run: Run, flag: Flag, now: int, so_far: EpochSums) -> None:
        if (now, so_far.step) == (epoch, step):
            stop()
        after_step(run, flag, now, so_far)

    monkeypatch.setattr(fitting, "_after_step", patched)
    monkeypatch.setattr(fitting, "SAVE_EVERY_SECONDS", save_every)


def killed() -> None:
    raise RuntimeError("killed")


@pytest.mark.parametrize(("epoch", "average"), [(1, "averaging=epoch_ema"), (2, "averaging=ema")])
@pytest.mark.parametrize("by", ["signal", "clock"])
def test_a_run_continues_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, epoch: int, average: str
) -> None:
    """After a signal, and after a kill from the last state that the clock saved; also before an average's update."""
    cfg = make_config(tmp_path / "stopped", average)
    with monkeypatch.context() as patch:
        if by == "signal":
            stop_after(patch, epoch, 2, lambda: send(signal.SIGTERM))
            with pytest.raises(Interrupted, match=f"at epoch {epoch} of 3, batch 2 of 3;"):
                train(cfg)
        else:
            stop_after(patch, epoch, 3, killed, save_every=0)
            with pytest.raises(RuntimeError):
                train(cfg)
    saved = checkpoint.read(run_folder(cfg) / "checkpoint.pt")
    assert (saved["epoch"], saved["partial"]["step"]) == (epoch - 1, 2)
    folder, whole = train(cfg), train(make_config(tmp_path / "whole", average))
    assert_equal(comparable(folder), comparable(whole))


def test_the_clock_saves_only_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 2, 3, killed)
    with pytest.raises(RuntimeError):
        train(cfg := make_config(tmp_path))
    saved = checkpoint.read(run_folder(cfg) / "checkpoint.pt")
    assert saved["epoch"] == 1
    assert "partial" not in saved


def test_a_step_that_hangs_is_ended_where_the_last_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        send(signal.SIGINT)
        time.sleep(30)

    stop_after(monkeypatch, 2, 2, hang)
    with pytest.raises(Interrupted) as stop:
        train(make_config(tmp_path))
    assert str(stop.value) == "interrupted at epoch 2 of 3; the same command continues there"


@pytest.mark.parametrize(("context", "line"), [(interruptible, ""), (worker, f"{Interrupted(signal.SIGTERM)}\n")])
def test_a_signal_counts_although_a_library_turns_its_exception_into_another(
    context: Callable[[], AbstractContextManager[object]], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As OmegaConf does with what a resolver raises; a job prints its line then too."""
    with pytest.raises(Interrupted) as stop, context():  # noqa: PT012 - the signal arrives inside
        try:
            send(signal.SIGTERM)
            time.sleep(5)
        except BaseException as error:
            raise ValueError("not a number") from error
    assert (stop.value.code, capsys.readouterr().err) == (143, line)


def test_a_signal_inside_an_import_ends_the_process_at_once(tmp_path: Path) -> None:
    """A library that starts in C++ aborts if an exception reaches it, as this module does."""
    send_to_itself = "os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(5)"
    aborts = f"import os, signal, time\ntry:\n    {send_to_itself}\nexcept BaseException:\n    os.abort()\n"
    (tmp_path / "starts_in_c.py").write_text(aborts)
    program = "from dkl.runtime.interruption import interruptible\nwith interruptible():\n    import starts_in_c"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (143, "interrupted; the same command continues\n")


def test_other_exceptions_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="not a number"), interruptible():
        raise ValueError("not a number")


def test_a_process_that_waits_for_the_others_of_its_group_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first of two, whose second one never comes, waits in C code."""
    if (number := os.fork()) == 0:
        with interruptible(), process_group("cpu", f"file://{tmp_path}/store", 0, 2):
            pass
        os._exit(0)
    time.sleep(0.5)
    os.kill(number, signal.SIGTERM)
    started = time.monotonic()
    _, status = os.waitpid(number, 0)
    assert time.monotonic() - started < 20
    assert os.waitstatus_to_exitcode(status) == 143
    assert capfd.readouterr().err == "interrupted; the same command continues\n"


def test_a_process_ends_with_the_one_that_started_it() -> None:
    """The middle process starts another one, which waits in a system call, and is killed."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            os.close(reading)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as if the main thread did not react
            multiprocessing.process._parent_process = None
            end_with_parent()
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
    os.close(writing)
    time.sleep(0.3)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    started = time.monotonic()
    os.read(reading, 1)  # returns when the last process that holds the other end has ended
    assert time.monotonic() - started < 2
    os.close(reading)
