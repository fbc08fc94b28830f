"""Two machines under torchrun, as two agents on this one: a worker is killed, all end, and a restart ends the same."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dkl.training.state import METRICS
from tests.training.common import assert_equal, comparable, finish, start

pytestmark = pytest.mark.endurance

SETTINGS = (
    *("data=digits", "data.train_size=256", "data.test_size=40", "trainer.batch_size=32", "trainer.epochs=30"),
    *("trainer.threads=1", "trainer.device=cpu", "loss=ikl", "averaging=ema", "attack.steps=2"),
)


PATIENCE = 1200.0
"""Seconds for a command of two agents, on a machine that may do other work."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(happened: Callable[[], bool], seconds: float) -> float:
    """Wait until ``happened``; return how long that took."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < seconds, f"nothing has happened for {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started


def epochs_done(home: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in home.glob(f"*/results/runs/*/{METRICS}"))


def stop(agent: "subprocess.Popen[str]") -> None:
    """Kill ``agent`` and its workers if they still run, and close its pipes."""
    if agent.poll() is None:
        for pid in (*children(agent.pid), agent.pid):
            os.kill(pid, signal.SIGKILL)
    if agent.stdout and not agent.stdout.closed:
        agent.communicate()


@contextmanager
def agents(folder: Path, restarts: int, *command: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two agents of torchrun, each with one worker and a folder of its own, as on machines that share nothing."""
    port = free_port()
    torchrun = [
        *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--max-restarts={restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=dkl", "--local-addr=127.0.0.1"),
        *("--monitor-interval=0.2", "-m", "dkl", *command),
    ]
    with ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            (folder / name).mkdir(exist_ok=True, parents=True)
            process = start(torchrun, folder / name)
            stack.callback(stop, process)
            started.append(process)
        yield started


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by two processes of one machine, without an interruption."""
    folder = tmp_path_factory.mktemp("expected")
    finish(start(["-m", "dkl", "train", *SETTINGS, "trainer.devices=2"], folder))
    (run,) = folder.glob("results/runs/*-*")
    return run


def test_a_killed_worker_ends_all_and_the_restart_continues(expected: Path, tmp_path: Path) -> None:
    with agents(tmp_path, 3, "train", *SETTINGS) as (one, two):
        wait_for(lambda: epochs_done(tmp_path) >= 3, PATIENCE)
        before = [worker for agent in (one, two) for worker in children(agent.pid)]
        assert len(before) == 2
        os.kill(before[1], signal.SIGKILL)
        seconds = wait_for(lambda: not any(map(is_running, before)), 60)
        print(f"all workers ended after {seconds:.1f} s", file=sys.stderr)
        assert seconds < 30
        epochs = epochs_done(tmp_path)
        for agent in (one, two):
            finish(agent, PATIENCE)
    assert epochs < 30
    folders = [path for home in ("one", "two") for path in (tmp_path / home).glob("results/runs/*/checkpoint.pt")]
    found = [comparable(path.parent) for path in folders]
    last = max(found, key=lambda content: content["epoch"])
    assert_equal(last, comparable(expected))


def test_without_restarts_all_processes_end_within_seconds(tmp_path: Path) -> None:
    with agents(tmp_path, 0, "train", *SETTINGS) as (one, two):
        wait_for(lambda: epochs_done(tmp_path) >= 1, PATIENCE)
        workers = [worker for agent in (one, two) for worker in children(agent.pid)]
        os.kill(workers[0], signal.SIGKILL)
        seconds = wait_for(lambda: one.poll() is not None and two.poll() is not None, 120)
        print(f"both agents ended after {seconds:.1f} s", file=sys.stderr)
        assert not any(map(is_running, workers))
        assert one.returncode
        assert two.returncode


def test_evaluation_and_reproduction_by_two_agents(tmp_path: Path) -> None:
    results = f"paths.results={tmp_path / 'shared'}"
    rows = ("experiment=quickstart", "budget=smoke", "row=IKL-AT", "trainer.device=cpu", "trainer.threads=1", results)
    with agents(tmp_path, 0, "reproduce", *rows) as started:
        printed = [finish(agent, PATIENCE) for agent in started]
    assert sum("1 of 1 runs done" in text for text in printed) == 1
    (run,) = (path for path in (tmp_path / "shared").glob("**/runs/*-*-*") if (path / "checkpoint.pt").exists())
    with agents(tmp_path, 0, "evaluate", f"run={run}", "attacks=[pgd-3]", "device=cpu", results) as started:
        for agent in started:
            finish(agent, PATIENCE)
