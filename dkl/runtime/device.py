"""The accelerator of this machine, as ``torch.accelerator`` finds it: CUDA, ROCm, XPU, or a backend of your own.

No other module of dkl names a kind of device. What only CUDA has, such as TF32, is here too.
"""

import multiprocessing
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dkl.errors import UserError, first_line


def accelerator() -> torch.device | None:
    """Return the kind of accelerator that is usable here, without an index; None if there is none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    # MPS has no float64, in which an epoch's sums are kept. Nothing is tried here: that would occupy a GPU's memory.
    return None if found is None or found.type == "mps" else found


def pick_device(name: torch.device | str | int) -> torch.device:
    """Return the device ``name``; ``auto`` is the accelerator if there is one, else the CPU.

    Raises UserError if the device is not usable.
    """
    if name == "auto":
        return accelerator() or torch.device("cpu")
    # An epoch's sums are kept in float64.
    return usable_device(name, torch.float64)


def usable_device(device: torch.device | str | int, dtype: torch.dtype) -> torch.device:
    """Return ``device`` as one of torch. Raises UserError if it cannot hold tensors of ``dtype``."""
    try:
        usable = torch.device(device)
    except (RuntimeError, TypeError):  # torch lists twenty kinds of devices
        raise UserError(f"device={device} is not a device: use auto, cpu or cuda") from None
    try:
        torch.empty(0, device=usable, dtype=dtype)
    except NotImplementedError:
        raise UserError(
            f"device={device} is not supported by this installation of torch: use auto, cpu or cuda"
        ) from None
    except (RuntimeError, AssertionError, TypeError) as error:
        why = first_line(error).partition(". ")[0]
        raise UserError(f"device={device} is not usable here ({why}): use auto, cpu or cuda") from None
    return usable


def on_accelerator(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is on an accelerator, where work is queued while the CPU continues."""
    return tensor.device.type not in ("cpu", "meta")


def count(kind: str) -> int:
    """Return the number of visible devices of the accelerator ``kind``; 0 for the CPU."""
    here = accelerator()
    return torch.accelerator.device_count() if here is not None and here.type == kind else 0


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FEW_PROCESSES = 8
"""So many processes may run also on a CPU with fewer cores, to try out several devices."""


def check_processes(processes: int, device: torch.device, key: str = "devices") -> None:
    """Raise UserError, which names ``key``, if this machine cannot carry so many ``processes``.

    Each needs an accelerator, or on a CPU a core; ``FEW_PROCESSES`` may share cores.
    """
    if device.type != "cpu" and processes > count(device.type):
        raise UserError(f"{key}={processes} exceeds the {count(device.type)} GPUs of this machine: lower it")
    if device.type == "cpu" and processes > (most := max(FEW_PROCESSES, cores())):
        raise UserError(f"{key}={processes} is too much for the {cores()} cores of this machine: use at most {most}")


def own_device(device: torch.device, number: int) -> torch.device:
    """Return the device of process ``number`` on its machine, counted from 0: one accelerator per process.

    A launcher may let each process see one device only (``srun --gpus-per-task=1``); that one is then device 0. Raises
    UserError if there are fewer devices than processes.
    """
    if device.type == "cpu":
        return device
    visible = count(device.type)
    if visible > 1 and number >= visible:
        raise UserError(
            f"process {number} of this machine has no device: {visible} are visible; start {visible} processes per "
            "machine, or let each process see one device"
        )
    return torch.device(device.type, number if visible > 1 else 0)


def take_turn(number: int) -> None:
    """Give job ``number`` of a sweep an accelerator of this machine, in turn, if a launcher has started the process."""
    if multiprocessing.current_process().name == "MainProcess":
        return
    found = accelerator()
    if found is not None and (visible := count(found.type)) > 1:
        torch.accelerator.set_device_index(number % visible)


def use(device: torch.device) -> None:
    """Make ``device`` the current one of this process, for libraries that name no index."""
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)


def backends(kind: str) -> str:
    """The backends of a process group for tensors on the CPU and on ``kind``, such as ``cpu:gloo,cuda:nccl``."""
    if kind == "cpu":
        return "gloo"
    return f"cpu:gloo,{kind}:{torch.distributed.get_default_backend_for_device(kind)}"


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the state of the global generator of ``device``, which is this process's; empty for the CPU."""
    if device.type == "cpu":
        return {}
    return {"kind": device.type, "state": torch.get_device_module(device).get_rng_state(device)}


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what ``rng_state`` returned; nothing happens if that was for another kind of device."""
    if state and state["kind"] == device.type:
        torch.get_device_module(device).set_rng_state(state["state"].cpu(), device)


def describe(device: torch.device) -> str:
    """The name of the processor behind ``device``."""
    if device.type != "cpu":
        module = torch.get_device_module(device)
        return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else device.type
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def arithmetic(
    device: torch.device, *, products: str, convolutions: str, fastest: bool = False, deterministic: bool = False
) -> Iterator[None]:
    """Compute on ``device`` inside as asked; a CPU always computes float32 as IEEE 754 does.

    ``products`` of matrices and ``convolutions`` are ``ieee`` or ``tf32``: TF32 rounds their inputs to 10 bits.
    ``fastest`` tries cuDNN's algorithms and takes the fastest, which may be another one in each process.
    ``deterministic`` raises RuntimeError at an operation whose result varies between runs.
    """
    cuda = device.type == "cuda"
    cudnn: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    matmul, conv, benchmark = torch.get_float32_matmul_precision(), cudnn.conv.fp32_precision, cudnn.benchmark
    if cuda:
        torch.set_float32_matmul_precision("high" if products == "tf32" else "highest")
        cudnn.conv.fp32_precision, cudnn.benchmark = convolutions, fastest and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if cuda:
            torch.set_float32_matmul_precision(matmul)
            cudnn.conv.fp32_precision, cudnn.benchmark = conv, benchmark


def arithmetic_of(device: torch.device) -> dict[str, Any]:
    """The settings of ``device`` that change the last bits of a result; none on a CPU."""
    if device.type != "cuda":
        return {}
    backends: Any = torch.backends
    return {
        "tf32": backends.cudnn.conv.fp32_precision == "tf32",
        "matmul_tf32": backends.cuda.matmul.fp32_precision == "tf32",
        "cudnn_benchmark": backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def local_number(rank: int) -> int:
    """Return the number of this process on its machine: torchrun's LOCAL_RANK, SLURM's, or its share of ``rank``."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if name in os.environ:
            return int(os.environ[name])
    found = accelerator()
    return rank % max(1, count(found.type)) if found is not None else rank
