"""Several processes that train or evaluate as one. Without a process group all functions here do nothing.

Gradients are summed explicitly, without DistributedDataParallel. A step of adversarial training differentiates up to a
dozen times but needs only one or two sums, so there is little communication to overlap with computation. Adversarial
weight perturbation also needs a sum in the middle of a step.

BatchNorm sees the images of one device. ``split_batch_norm`` lets fewer devices show it what more devices would.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from dkl.errors import UserError
from dkl.runtime.device import backends, local_number, own_device, use
from dkl.runtime.interruption import Interrupted, deferred, end_with_parent, interruptible

T = TypeVar("T")

POLL = 0.2
"""Seconds between two questions to the store."""

GRACE = 5.0
"""Seconds in which processes notice that another one has failed, and end by themselves; then they are stopped."""

PATIENCE = 10.0
"""Seconds that a process waits for those it has started to save their state after a signal; then it kills them."""


_alone = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works for itself, also if it belongs to a group: others may have other images."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone.get() else 0


def world() -> int:
    """Return the number of processes that work together."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def local_device(device: torch.device) -> torch.device:
    """Return the device of this process: with several processes one accelerator per process of a machine."""
    return device if world() == 1 else own_device(device, local_number(rank()))


@torch.no_grad()
def _in_one(
    tensors: Sequence[Tensor], exchange: Callable[[Tensor], object], like: Sequence[Tensor] | None = None
) -> None:
    """Apply ``exchange`` to all ``tensors`` in place, with one message per dtype.

    Its order is that of the memory of ``like``, by default of the tensors themselves, and must be the same everywhere.
    """
    # Hundreds of small messages would cost more in latency than the copies into one. In the order of memory, all
    # tensors are copied in one launch, also those with channels last.
    ordered = list(tensors)
    for place, stored in enumerate(like or tensors):
        if not stored.is_contiguous() and stored.ndim == 4 and stored.is_contiguous(memory_format=torch.channels_last):
            ordered[place] = tensors[place].permute(0, 2, 3, 1)
    for dtype in dict.fromkeys(tensor.dtype for tensor in ordered):
        same = [tensor for tensor in ordered if tensor.dtype is dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        exchange(flat)
        parts = flat.split([tensor.numel() for tensor in same])
        torch._foreach_copy_(same, [part.view(tensor.shape) for tensor, part in zip(same, parts, strict=True)])


def sum_over_ranks(tensors: Sequence[Tensor], like: Sequence[Tensor] | None = None) -> None:
    """Replace each tensor by its sum over all processes.

    If their layout in memory may differ between processes, as that of gradients, ``like`` has tensors of the same
    shapes whose layout does not, such as the parameters.
    """
    if world() > 1:
        _in_one(tensors, dist.all_reduce, like)


def mean_over_ranks(flags: Tensor) -> tuple[float, int]:
    """Return the mean of bool ``flags[n]`` over all processes, each with its share of the images, and their number."""
    counts = torch.stack([flags.sum(), torch.tensor(len(flags))])
    sum_over_ranks([counts])
    return (counts[0] / counts[1]).item(), int(counts[1])


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients of ``parameters`` over all processes; a missing gradient counts as zero.

    Each process differentiates its images' part of the mean loss over the whole batch. The sum, not the mean, is
    therefore the gradient that one process would compute, also if the shares have different sizes.
    """
    if world() == 1:
        return
    # Every process must send the same tensors, or the others wait forever: a missing gradient is sent as zeros.
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    sum_over_ranks([parameter.grad for parameter in trained if parameter.grad is not None], trained)


def share_buffers(model: nn.Module) -> None:
    """Copy the buffers of process 0, such as BatchNorm's running statistics, to every process."""
    # As in DataParallel of the official code, only the first device's statistics are kept.
    if world() > 1:
        _in_one(list(model.buffers()), lambda flat: dist.broadcast(flat, 0))


class _InParts:
    """The forward pass of a BatchNorm in train mode on ``parts`` parts of a batch; mixed into its class.

    ``nn.DataParallel`` cuts a batch into contiguous chunks. Each GPU normalizes its chunk by that chunk's statistics,
    and the running statistics of the first GPU are kept. One device that does the same with the parts of its share
    computes what so many devices compute. With two views per image, [basic; augmented], an even number of parts shows
    BatchNorm one view at a time, and the basic view moves the running statistics.
    """

    parts: int

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(self, _BatchNorm)
        if not self.training:
            return super().forward(images)  # type: ignore[misc]  # of the class beside it
        size, larger = divmod(len(images), self.parts)
        smaller = self.parts - larger if size else 0  # of few images no part is empty
        # Unlike tensor_split, split has a backward pass that copies every part once.
        first, *others = images.split([size + 1] * larger + [size] * smaller)
        normalized = [super().forward(first)]  # type: ignore[misc]  # it alone moves the running statistics
        for part in others:
            normalized.append(F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps))
        return torch.cat(normalized)


def split_batch_norm(model: nn.Module, parts: int) -> None:
    """Let every BatchNorm of ``model`` see the images of this process in ``parts`` parts, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _InParts) and parts > 1:
            kind = type(module)
            module.__class__ = type(f"{kind.__name__}InParts", (_InParts, kind), {"parts": parts})


def gather(value: T) -> list[T]:
    """Return the ``value`` of every process, in order of rank."""
    if world() == 1:
        return [value]
    values: list[T] = [value] * world()
    dist.all_gather_object(values, value)
    return values


def largest(value: int) -> int:
    """Return the largest ``value`` of all processes, by a message between CPUs."""
    if world() == 1:
        return value
    shared = torch.tensor(value)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def from_first(value: T, first: int = 0) -> T:
    """Return the ``value`` of process ``first`` in every process."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, first)
    return values[0]


def barrier() -> None:
    """Wait for every process."""
    if world() > 1:
        dist.barrier()


def first_before_others(work: Callable[[], T]) -> T:
    """Return ``work()``, which the first process does before the others begin, for example to download files.

    The others ask the store, so that they may wait longer than a collective on GPUs, which fails after ten minutes.
    """
    if world() == 1:
        return work()
    store = dist.distributed_c10d._get_default_store()
    call = f"first_before_others {store.add(f'calls of {rank()}', 1)}"
    if rank() > 0:
        while not store.check([call]):  # raises an error if the first process has ended
            time.sleep(POLL)
        return work()
    result = work()
    store.set(call, "done")
    return result


@contextmanager
def process_group(device: str, init_method: str = "env://", number: int = -1, size: int = -1) -> Iterator[None]:
    """Form a process group around the body, if there is none yet: gloo on the CPU, NCCL on CUDA devices.

    ``device`` is cpu or a kind of accelerator. ``number`` and ``size`` are rank and number of processes; by default
    torchrun's.
    """
    if dist.is_initialized():
        yield
        return
    # With gloo the processes wait up to a day for each other: one batch of an evaluation may take hours, and a process
    # that dies closes its connections, which the others notice at once.
    patience = timedelta(days=1) if device == "cpu" else None
    if device != "cpu":
        use(own_device(torch.device(device), local_number(max(number, int(os.environ.get("RANK", 0))))))

    def join() -> None:
        store, rank, world_size = next(dist.rendezvous(init_method, number, size))
        # torchrun's store lives longer than a group. A second group would find the keys of the first one, so each group
        # gets a prefix: how many groups there were before.
        earlier = (store.add("groups", 1) - 1) // world_size
        store = dist.PrefixStore(f"group{earlier}", store)
        dist.init_process_group(backends(device), store=store, rank=rank, world_size=world_size, timeout=patience)

    # In another thread, because it waits in C code, where Python handles no signals.
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(join).result()
        except Interrupted as stop:  # leaving the interpreter takes seconds while a thread waits in C code
            stop.report()
            os._exit(128 + stop.signum)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _entry(number: int, folder: str, size: int, device: str, function: Callable[..., object], args: tuple) -> None:
    """Run ``function`` in process ``number``; if it fails, write the error to a file in ``folder`` and exit with 2."""
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
    end_with_parent()
    with interruptible(), process_group(device, f"file://{folder}/store", number, size):
        try:
            function(*args)
        except Interrupted as stop:
            parent = multiprocessing.parent_process()
            if parent is not None and parent.is_alive():
                (Path(folder) / f"{time.time_ns()}.error").write_bytes(pickle.dumps(stop))
            # At once: leaving the group and the interpreter takes seconds, and the parent prints its line after that.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + stop.signum)
        except Exception as error:
            # Written before this process leaves the group: its end makes the others fail too, with a message about
            # their connection. The earliest file is the cause.
            raised = error if isinstance(error, UserError) else RuntimeError(traceback.format_exc())
            (Path(folder) / f"{time.time_ns()}.error").write_bytes(pickle.dumps(raised))
            raise SystemExit(2) from None


def _killed(codes: Sequence[int | None], first: int, fault: Path | None) -> str | None:
    """Describe the process that was killed from outside, by the exit ``codes``; None if there is none.

    ``first`` is the number of the process that ended first, and ``fault`` the first report of another process.
    """
    # A process that loses its connection reports a fault, and may be seen to end before the one that was killed. After
    # two grace periods the processes that are left are killed from here.
    recent = fault is None or time.time_ns() - int(fault.stem) < 2e9 * GRACE
    for number in (first, *(range(len(codes)) if recent else ())):
        if (code := codes[number]) is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
            return f"process {number} was ended by {name}{hint}"
    return None


def spawn_processes(function: Callable[..., object], args: tuple, *, processes: int, device: str) -> None:
    """Run ``function(*args)`` in ``processes`` new processes that form a group, and wait for all.

    ``device`` is cpu or a kind of accelerator. If a process fails, the others are stopped. Raises the first
    failure: a UserError as it is, anything else as a RuntimeError with the traceback. SIGINT and SIGTERM go to all
    processes, which save their state; then Interrupted is raised. If this process is killed, the others end within two
    seconds.
    """
    from torch.multiprocessing.spawn import ProcessException, start_processes

    with tempfile.TemporaryDirectory() as folder, deferred(PATIENCE, forward=True) as flag:
        try:
            arguments = (folder, processes, device, function, args)
            context = start_processes(_entry, arguments, processes, join=False, start_method="spawn")
            while not context.join(grace_period=GRACE):
                pass
        except Interrupted:  # patience is over
            for child in multiprocessing.active_children():
                child.kill()
            raise
        except ProcessException as ended:
            first = min(Path(folder).glob("*.error"), default=None)
            error: BaseException | None = None if first is None else pickle.loads(first.read_bytes())
            fault = first if isinstance(error, RuntimeError) else None
            killed = _killed([each.exitcode for each in context.processes], ended.error_index, fault)
            if error is None and flag.signum:
                raise Interrupted(flag.signum) from None
            if error is None or (fault and killed):
                how = killed or f"process {ended.error_index} was ended by an error of its own"
                raise UserError(f"{how}; the same command continues from the last checkpoint") from None
            raise error from None
