"""First as they are, then attack after attack on the points still standing, batch by batch, saved after every batch.

The order is AutoAttack's: an attack sees only images that every attack before it left correctly classified, cut into
batches anew at its start, each batch attacked from a freshly seeded generator. A killed evaluation goes on with the
batches that are left and ends with the flags of one never killed, which are those of the package called directly.

Several processes share the batches of an attack and tell each other what fell before the next one is cut, so their
number changes neither batches nor seeds nor flags.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks import Perturb, frozen_eval
from dkl.console import Bar, bar
from dkl.distributed import gather, rank, world
from dkl.evaluation.robustness.progress import AttackProgress, Bools, State, load, merge, save
from dkl.evaluation.robustness.suites import passes
from dkl.tasks.accuracy import top1, top5

Judge = Callable[[Tensor, Tensor], Tensor]
"""From ``logits[B, C]`` and ``labels[B]`` to bool ``[B]``: which images stand."""


@contextmanager
def _counted(model: nn.Module, progress: Bar) -> Iterator[None]:
    """Every forward pass of ``model`` inside is a step of ``progress``."""
    handle = model.register_forward_hook(lambda module, inputs, output: progress.advance())
    try:
        yield
    finally:
        handle.remove()


def scaled(images: Tensor) -> Tensor:
    """``images`` in [0, 1]: uint8 ones divided by 255, on the device they are on; others are so already."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


@dataclass
class _Evaluation:
    """The images under attack, in [0, 1] or bytes, and where this process is with them."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    batch_size: int
    device: torch.device
    folder: Path
    state: State

    def attack(self, judges: Mapping[str, Judge], perturb: Perturb, start: Bools, cost: int) -> Bools:
        """Flags of the first of ``judges`` on the points of ``start`` after ``perturb``, as each judge sees the logits.

        This process does its share of the batches that are left; ``cost`` is about how many passes a batch takes.
        """
        batches = torch.from_numpy(start).nonzero().squeeze(1).split(self.batch_size) if start.any() else ()
        for judge in judges:
            self.state.setdefault(judge, AttackProgress(start.copy(), np.full(len(batches), np.nan)))
        name = next(iter(judges))
        standing = self.state[name]
        done = np.logical_and.reduce([self.state[judge].done for judge in judges])
        mine = np.flatnonzero(~done)[rank() :: world()]
        finished = int(done.sum())
        total, reached = cost * (finished + len(mine)), cost * finished
        with bar(name, total, reached) as progress, _counted(self.model, progress):
            for count, number in enumerate(mine, finished + 1):
                self._batch(judges, perturb, batches[number], number)
                share = f"process 1 of {world()}" if world() > 1 else f"{standing.flags.mean():.2%} standing"
                progress.reach(cost * count, share)
        self.state |= merge(gather({judge: self.state[judge] for judge in judges}))
        return self.state[name].flags

    def _batch(self, judges: Mapping[str, Judge], perturb: Perturb, chosen: Tensor, number: int) -> None:
        """Attack the images ``chosen``, and keep what became of them on disk."""
        started = time.perf_counter()
        x, y = scaled(self.images[chosen]).to(self.device), self.labels[chosen].to(self.device)
        logits = self.model(perturb(x, y))
        found = {name: judge(logits, y).cpu().numpy() for name, judge in judges.items()}
        for name, flags in found.items():
            self.state[name].flags[chosen.numpy()] = flags
            self.state[name].seconds[number] = time.perf_counter() - started
        save(self.state, self.folder / f"{rank()}.npz")


@torch.no_grad()
def run_attacks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Mapping[str, Perturb],
    *,
    batch_size: int,
    device: torch.device,
    folder: Path,
    num_classes: int = 10,
    top_five: bool = False,
) -> State:
    """Where ``clean`` and all ``attacks`` left ``images[N, C, H, W]``, uint8 or in [0, 1], resumed from ``folder``.

    With ``top_five``, ``top5`` says for which of them, as they are, the label is among the five likeliest classes.
    Every process of the group, where there is one, calls this alike and gets the same. Seconds of a batch are those of
    the process that did it; their sum is what one process would have taken, not the time that passed.
    """
    state = merge(gather(load(folder)))  # all have read before any writes
    evaluation = _Evaluation(model, images, labels, batch_size, device, folder, state)
    natural: dict[str, Judge] = {"clean": top1, "top5": top5} if top_five else {"clean": top1}
    with frozen_eval(model):
        flags = evaluation.attack(natural, lambda x, y: x, np.ones(len(labels), dtype=np.bool_), 1)
        for name, perturb in attacks.items():
            flags = evaluation.attack({name: top1}, perturb, flags, passes(name, num_classes))
    return {name: state[name] for name in (*natural, *attacks)}
