"""Attack after attack on the points still standing, batch by batch, saved after every batch.

The order is AutoAttack's: an attack sees only images that every attack before it left correctly classified, cut into
batches anew at its start, each batch attacked from a freshly seeded generator. A killed evaluation goes on with the
batches that are left and ends with the flags of one never killed, which are those of the package called directly.

Several processes share the batches of an attack and tell each other what fell before the next one is cut, so their
number changes neither batches nor seeds nor flags.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks import Perturb, attack_mode
from dkl.console import Bar, bar
from dkl.distributed import gather, rank, world
from dkl.evaluation.standing import Bools, Standing, State, load, merge, save
from dkl.evaluation.suites import passes


@contextmanager
def _counted(model: nn.Module, progress: Bar) -> Iterator[None]:
    """Every forward pass of ``model`` inside is a step of ``progress``."""
    handle = model.register_forward_hook(lambda module, inputs, output: progress.advance())
    try:
        yield
    finally:
        handle.remove()


@dataclass
class _Evaluation:
    """The images under attack, and where this process is with them."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    batch_size: int
    device: torch.device
    folder: Path
    state: State

    def attack(self, name: str, perturb: Perturb, start: Bools, cost: int) -> Bools:
        """Flags after ``name`` on the points of ``start``; ``cost`` is about how many passes a batch takes.

        This process does its share of the batches that are left.
        """
        batches = torch.from_numpy(start).nonzero().squeeze(1).split(self.batch_size) if start.any() else ()
        standing = self.state.setdefault(name, Standing(start.copy(), np.full(len(batches), np.nan)))
        finished = int(standing.done.sum())
        mine = np.flatnonzero(~standing.done)[rank() :: world()]
        total, reached = cost * (finished + len(mine)), cost * finished
        with bar(name, total, reached) as progress, _counted(self.model, progress):
            for count, number in enumerate(mine, finished + 1):
                self._batch(perturb, batches[number], standing, number)
                share = f"process 1 of {world()}" if world() > 1 else f"{standing.flags.mean():.2%} standing"
                progress.reach(cost * count, share)
        self.state[name] = merge(gather({name: standing}))[name]
        return self.state[name].flags

    def _batch(self, perturb: Perturb, chosen: Tensor, standing: Standing, number: int) -> None:
        """Attack the images ``chosen``, and keep what became of them on disk."""
        started = time.perf_counter()
        x, y = self.images[chosen].to(self.device), self.labels[chosen].to(self.device)
        predicted = self.model(perturb(x, y)).argmax(1)
        standing.flags[chosen.numpy()] = (predicted == y).cpu().numpy()
        standing.seconds[number] = time.perf_counter() - started
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
) -> State:
    """Where ``clean`` and all ``attacks`` left ``images[N, C, H, W]`` in [0, 1], resumed from ``folder``.

    Every process of the group, where there is one, calls this alike and gets the same. Seconds of a batch are those of
    the process that did it; their sum is what one process would have taken, not the time that passed.
    """
    state = merge(gather(load(folder)))  # all have read before any writes
    evaluation = _Evaluation(model, images, labels, batch_size, device, folder, state)
    with attack_mode(model):
        flags = evaluation.attack("clean", lambda x, y: x, np.ones(len(labels), dtype=np.bool_), 1)
        for name, perturb in attacks.items():
            flags = evaluation.attack(name, perturb, flags, passes(name, num_classes))
    return {name: state[name] for name in ("clean", *attacks)}
