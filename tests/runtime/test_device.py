"""Devices of processes and of jobs, and the arithmetic of CUDA, whose settings exist without a GPU."""

import multiprocessing
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

import dkl
from dkl.config import EvaluateConfig
from dkl.errors import UserError
from dkl.evaluation import make_record
from dkl.evaluation.run import _check_devices
from dkl.runtime import device
from tests.device import pretend

CUDA = torch.device("cuda")


@pytest.mark.slow(minutes=1)
def test_all_runs_on_a_pretend_device() -> None:
    if reason := pretend.missing():
        pytest.skip(reason)
    # torch starts a thread per device at the first backward pass, and then neither takes a new device nor forks.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "pretend_device", "tests/device"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with eight GPUs; the list collects which become current."""
    current: list[int] = []
    monkeypatch.setattr(device, "accelerator", lambda: CUDA)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    return current


def test_each_process_has_its_own_device(gpus: list[int]) -> None:
    assert [device.own_device(CUDA, number).index for number in range(8)] == list(range(8))
    assert device.own_device(torch.device("cpu"), 3) == torch.device("cpu")
    with pytest.raises(UserError, match="process 8 of this machine has no device: 8 are visible"):
        device.own_device(CUDA, 8)


def test_a_process_that_sees_one_device_uses_it(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert device.own_device(CUDA, 3).index == 0  # srun --gpus-per-task=1 with LOCAL_RANK=3


@pytest.mark.parametrize(
    ("variables", "expected"), [({"LOCAL_RANK": "5"}, 5), ({"SLURM_LOCALID": "2"}, 2), ({}, 13 % 8)], ids=str
)
def test_the_number_of_a_process_on_its_machine(
    variables: dict[str, str], expected: int, gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert device.local_number(13) == expected


def test_jobs_of_a_launcher_take_the_devices_in_turn(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    device.take_turn(9)  # the only job of this process: it keeps the first device
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "LokyProcess-1")
    for number in (0, 1, 9):
        device.take_turn(number)
    assert gpus == [0, 1, 1]


def test_arithmetic_is_set_inside_only() -> None:
    before = device.arithmetic_of(CUDA)
    with device.arithmetic(CUDA, products="tf32", convolutions="tf32", fastest=True):
        inside = device.arithmetic_of(CUDA)
        assert inside == {"tf32": True, "matmul_tf32": True, "cudnn_benchmark": True, "deterministic": False}
    with device.arithmetic(CUDA, products="ieee", convolutions="ieee", fastest=True, deterministic=True):
        inside = device.arithmetic_of(CUDA)
        assert inside == {"tf32": False, "matmul_tf32": False, "cudnn_benchmark": False, "deterministic": True}
    assert device.arithmetic_of(CUDA) == before
    assert device.arithmetic_of(torch.device("cpu")) == {}


def test_processes_of_several_machines_may_be_more_than_one_machine_has_devices(
    gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkl.evaluation.run.pick_device", lambda name: CUDA)
    with pytest.raises(UserError, match="devices=16 exceeds the 8 GPUs"):
        _check_devices(EvaluateConfig(devices=16))
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("WORLD_SIZE", "16")
    _check_devices(EvaluateConfig(devices=16))


def test_a_record_needs_no_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(make_record, "version", missing)
    assert make_record.versions()["dkl"] == dkl.__version__
