"""Several processes as one: who and how many they are, and what they sum. Without a group they do nothing.

Gradients, class sums and averages are reduced by hand and not by DistributedDataParallel: a step of adversarial
training differentiates up to a dozen times and reduces once or twice, so there is nothing to overlap, and adversarial
weight perturbation needs the same reduction in the middle of a step.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dkl.errors import BusyError, UserError


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> int:
    """How many processes torchrun (or whatever sets its variables) has started; 0 where it has not."""
    return int(os.environ.get("WORLD_SIZE", 0)) if "RANK" in os.environ else 0


def local_device(device: torch.device) -> torch.device:
    """This process's own device: ``cuda`` becomes one GPU a process on a machine."""
    if device.type != "cuda" or world() == 1:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank())))


@torch.no_grad()
def _in_one(tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """``exchange`` all of ``tensors`` in place, in one message a dtype."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype is dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        exchange(flat)
        for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view_as(tensor))


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each of ``tensors`` by its sum over all processes."""
    if world() > 1:
        _in_one(tensors, dist.all_reduce)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients of ``parameters`` over all processes; one that has none counts as zero."""
    if world() == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    sum_over_ranks(gradients)


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of process 0: of BatchNorm's running statistics only the first's survive."""
    if world() > 1:
        _in_one(list(model.buffers()), lambda flat: dist.broadcast(flat, 0))


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in order of rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for every process."""
    if world() > 1:
        dist.barrier()


@contextmanager
def group(device: str, init_method: str = "env://", number: int = -1, size: int = -1) -> Iterator[None]:
    """A process group around the body: NCCL with GPUs (gloo for what lies on the CPU), gloo without.

    With gloo alone they wait a day for one another: a batch of an evaluation may take hours, and one that dies is
    noticed at once.
    """
    patience = None if device.startswith("cuda") else timedelta(days=1)
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", max(number, 0))))
    store, number, size = next(dist.rendezvous(init_method, number, size))
    earlier = (store.add("groups", 1) - 1) // size  # torchrun's store outlives a group: keys of its own for each
    store = dist.PrefixStore(f"group{earlier}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=patience)
    try:
        yield
    finally:
        dist.destroy_process_group()


MISTAKES: dict[str, type[UserError]] = {"busy": BusyError, "mistake": UserError}
"""What a process may end with that is told as it is, the special before the general."""


def _entry(number: int, folder: str, size: int, device: str, function: Callable[..., object], args: tuple) -> None:
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
    with group(device, f"file://{folder}/store", number, size):
        try:
            function(*args)
        except Exception as error:  # noted before the group ends, by which the others fail as well
            kind = next((kind for kind, known in MISTAKES.items() if isinstance(error, known)), "fault")
            text = traceback.format_exc() if kind == "fault" else str(error)
            (Path(folder) / f"{time.time_ns()}.{kind}").write_text(text, encoding="utf-8")
            raise SystemExit(2) from None


def launch(function: Callable[..., object], args: tuple, *, processes: int, device: str) -> None:
    """Run ``function(*args)`` in ``processes`` processes that form a group, and wait for all.

    ``device`` is ``cpu`` or ``cuda``. Where one fails, the others are stopped, and what the first said is raised:
    UserError for a mistake of the user's, RuntimeError with the traceback for anything else.
    """
    from torch.multiprocessing.spawn import ProcessException, start_processes

    with tempfile.TemporaryDirectory() as folder:
        try:
            arguments = (folder, processes, device, function, args)
            context = start_processes(_entry, arguments, processes, join=False, start_method="spawn")
            while not context.join(grace_period=5):  # where one fails the others notice, and end by themselves
                pass
        except ProcessException:
            said = sorted(path for kind in (*MISTAKES, "fault") for path in Path(folder).glob(f"*.{kind}"))
            if not said:
                raise
            text = said[0].read_text(encoding="utf-8")
            raise MISTAKES.get(said[0].suffix[1:], RuntimeError)(text) from None
