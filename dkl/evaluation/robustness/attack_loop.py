"""The evaluation loop: clean accuracy first, then each attack on the images still classified correctly.

The order is AutoAttack's. An attack sees only the images that all earlier attacks left correctly classified. They are
cut into batches when the attack starts, and every batch is attacked from a freshly seeded generator. The flags equal
those of the package called directly.

The progress is saved after every batch. A killed evaluation continues with the next batch and ends with the same flags
as an uninterrupted one. Several processes share the batches of an attack and exchange their results before the next
attack starts, so the number of processes changes neither batches nor seeds nor flags.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks import Perturb, frozen_eval
from dkl.console import Bar, bar
from dkl.errors import UserError
from dkl.evaluation.robustness.places import PerturbChosen, cut, placed, unplaced
from dkl.evaluation.robustness.progress import AttackProgress, Bools, EvaluationState, load, merge, save
from dkl.evaluation.robustness.sample_result import SampleResult
from dkl.evaluation.robustness.suites import attack_cost
from dkl.runtime.distributed import gather, rank, world
from dkl.runtime.interruption import Interrupted
from dkl.tasks.base import top1, top5

IsCorrect = Callable[[Tensor, Tensor], Tensor]
"""Maps ``logits[B, C]`` and ``labels[B]`` to bool ``[B]``: which images count as correctly classified."""


@contextmanager
def _count_forward_passes(models: Iterable[nn.Module], progress: Bar) -> Iterator[None]:
    """Advance ``progress`` by one step for every forward pass of each of ``models``."""
    handles = [model.register_forward_hook(lambda module, inputs, output: progress.advance()) for model in models]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def scaled(images: Tensor) -> Tensor:
    """Convert uint8 ``images`` to floats in [0, 1]; return float images unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


@dataclass
class AttackLoop:
    """The images, uint8 or in [0, 1], and the progress of this process, saved in ``folder`` unless that is None.

    ``model`` classifies what the attacks find; ``searched`` is the network on which they search if it is another one.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    batch_size: int
    device: torch.device
    folder: Path | None
    state: EvaluationState
    searched: nn.Module | None = None

    def attack(
        self,
        criteria: Mapping[str, IsCorrect],
        perturb: PerturbChosen,
        correct: Bools,
        passes: int,
        *,
        batches: Sequence[Tensor] | None = None,
        first_batches: int | None = None,
    ) -> Bools:
        """Attack the images that are still ``correct[N]``; return which are correct afterwards by the first criterion.

        Each of ``criteria`` is applied to the same logits and has its own entry in the state. This process attacks its
        share of the unfinished batches. ``passes`` is the approximate number of forward passes per batch. ``batches``
        are indices of images, by default all correct ones in order; only the ``first_batches`` are attacked now.
        """
        # The batches depend only on the finished attacks before this one, so a resumed run cuts the same batches.
        batches = cut(correct, self.batch_size) if batches is None else batches
        for name in criteria:
            self.state.setdefault(name, AttackProgress.begin(correct, len(batches)))
        # A batch is done only if every criterion has been applied: older states have "clean" without "top5".
        done = np.logical_and.reduce([self.state[name].done for name in criteria])
        own_batches = np.flatnonzero(~done[:first_batches])[rank() :: world()]
        first = next(iter(criteria))
        finished = int(done.sum())
        total, reached = passes * (finished + len(own_batches)), passes * finished
        with (
            bar(first, total, reached) as progress,
            _count_forward_passes({self.model, self.searched or self.model}, progress),
        ):
            for count, number in enumerate(own_batches, finished + 1):
                try:
                    self._attack_batch(criteria, perturb, batches[number], number)
                except Interrupted as stop:
                    stop.place = f"after {first} batch {count - 1} of {finished + len(own_batches)}"
                    raise
                # One of several processes knows only its own share, so its percentage would mislead.
                share = f"{self.state[first].flags.mean():.2%} still correct"
                progress.reach(passes * count, f"process 1 of {world()}" if world() > 1 else share)
        # The next attack's batches are cut from the flags of all processes.
        self.state |= merge(gather({name: self.state[name] for name in criteria}))
        return self.state[first].flags

    def _attack_batch(
        self, criteria: Mapping[str, IsCorrect], perturb: PerturbChosen, chosen: Tensor, number: int
    ) -> None:
        """Attack the images with indices ``chosen`` and save the result."""
        started = time.perf_counter()
        if not len(chosen):  # all images of the batch are known from a sample
            for name in criteria:
                self.state[name].seconds[number] = 0.0
            return
        x, y = scaled(self.images[chosen]).to(self.device), self.labels[chosen].to(self.device)
        logits = self.model(perturb(x, y, chosen))
        # argmax of NaN is an arbitrary class, so such logits would count as correct by chance.
        finite = logits.isfinite().all(-1)
        if "clean" in criteria and not finite.all():
            broken = chosen[(~finite).nonzero()[0].cpu()].item()
            raise UserError(
                f"the network's logits are not finite on {int((~finite).sum())} of {len(y)} clean images, the first of "
                f"them number {broken}: it has no accuracy; check its weights, normalization and precision"
            )
        found = {name: (is_correct(logits, y) & finite).cpu().numpy() for name, is_correct in criteria.items()}
        for name, flags in found.items():
            self.state[name].flags[chosen.numpy()] = flags
            self.state[name].nonfinite[number] = int((~finite).sum())
            self.state[name].seconds[number] = time.perf_counter() - started
        # Every process writes only its own file, so no batch is lost to a concurrent write and no lock is needed.
        if self.folder is not None:
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
    folder: Path | None,
    num_classes: int = 10,
    top_five: bool = False,
    start: Mapping[str, AttackProgress] | None = None,
    sample: SampleResult | None = None,
    searched: nn.Module | None = None,
) -> EvaluationState:
    """Evaluate ``images[N, C, H, W]`` (uint8 or in [0, 1]) clean and under each attack; resume from ``folder``.

    Returns one entry for ``clean``, one per attack and, with ``top_five``, ``top5``: whether the label is among the
    five most likely classes of the clean image. All processes of a group call this with the same arguments and get the
    same result. A batch's seconds are those of the process that computed it, so their sum is the time that one process
    would need, not the elapsed time. ``start`` are attacks that an earlier evaluation finished, and ``sample`` what it
    found by attacking some of the images: neither is done again. The attacks search on ``searched`` if it is given.
    """
    # No process writes before all have read: gather waits for every process.
    state = {**(start or {}), **merge(gather(load(folder, len(labels))))}
    loop = AttackLoop(model, images, labels, batch_size, device, folder, state, searched)
    clean: dict[str, IsCorrect] = {"clean": top1, "top5": top5} if top_five else {"clean": top1}
    with frozen_eval(model):
        correct = loop.attack(clean, lambda x, y, chosen: x, np.ones(len(labels), dtype=np.bool_), 1)
        for name, perturb in attacks.items():
            passes = attack_cost(name, num_classes).forward + 1  # one more to classify the adversarial images
            known = sample.known(name, correct, batch_size) if sample else None
            if sample is None or known is None:
                correct = loop.attack({name: top1}, unplaced(perturb), correct, passes)
            else:
                # Cut as without the sample, so that the others are attacked in their places.
                batches = [batch[~known.tested[batch.numpy()]] for batch in cut(correct, batch_size)]
                chosen = placed(perturb, correct, batch_size) if name in sample.placed else unplaced(perturb)
                correct = loop.attack({name: top1}, chosen, known.remaining(correct), passes, batches=batches)
    return {name: state[name] for name in (*clean, *attacks)}
