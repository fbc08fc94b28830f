"""The loop that attacks batches of images, and its saved progress.

An attack sees only the images that all earlier attacks left correctly classified. They are cut into batches when the
attack starts, in order, and every batch is attacked from a freshly seeded generator. Where the draws of an image are
known without the others (``dkl.threat.Draws``), several batches are attacked together, each with its own draws: small
batches leave a processor idle. How many fit is found from the memory that the network needs, and by trying.

The progress is saved after every batch. A killed evaluation continues with the next batch and ends with the same flags
as an uninterrupted one. Several processes share the batches of an attack and exchange their results before the next
attack starts, so the number of processes changes neither batches nor seeds nor flags. Every process writes its own
file. The state is the union of all files, however many processes wrote them: an image is correct if no file has it as
misclassified, and a batch is done if any file has it as done. Both facts are final. Files of a stopped evaluation
therefore stay valid beside those of its continuation, even with another number of processes.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dkl.attacks.autoattack.classifier import scaled
from dkl.attacks.autoattack.task import AttackedBatch, AttackTask
from dkl.attacks.own import check_inside
from dkl.attacks.pgd import Perturb
from dkl.console import bar, stderr_console
from dkl.errors import UserError
from dkl.runtime.distributed import gather, rank, world
from dkl.runtime.interruption import Interrupted
from dkl.storage.files import load_arrays, save_arrays
from dkl.threat import Draws

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class AttackProgress:
    """The progress of one attack: ``flags[N]`` of correct images and ``seconds[batches]``, NaN if not done yet.

    ``nonfinite[batches]`` counts the images whose logits under the attack were not finite.
    """

    flags: Bools
    seconds: NDArray[np.float64]
    nonfinite: NDArray[np.int64]

    @classmethod
    def begin(cls, flags: Bools, batches: int) -> "AttackProgress":
        """Start an attack in ``batches`` batches on the images that are correct so far."""
        return cls(flags.copy(), np.full(batches, np.nan), np.zeros(batches, dtype=np.int64))

    @property
    def done(self) -> Bools:
        """Whether each batch is done."""
        return ~np.isnan(self.seconds)

    def __and__(self, other: "AttackProgress") -> "AttackProgress":
        """Combine the progress of two processes, or of an earlier and a later one."""
        # fmax ignores NaN, so a batch that one of the two finished is done.
        return AttackProgress(
            self.flags & other.flags,
            np.fmax(self.seconds, other.seconds),
            np.maximum(self.nonfinite, other.nonfinite),
        )


EvaluationState = dict[str, AttackProgress]
"""Maps each attack to its progress, in the order of the attacks; ``clean`` is the first."""


def merge(states: Iterable[EvaluationState]) -> EvaluationState:
    """Combine the states of several processes or files."""

    def combine(one: EvaluationState, other: EvaluationState) -> EvaluationState:
        return one | {name: one[name] & new if name in one else new for name, new in other.items()}

    return reduce(combine, states, {})


_PARTS = tuple(field.name for field in fields(AttackProgress))


def save(state: EvaluationState, path: Path) -> None:
    """Write ``state`` to ``path`` atomically."""
    save_arrays({f"{part}/{name}": getattr(state[name], part) for name in state for part in _PARTS}, path)


def _load_file(path: Path, images: int | None) -> EvaluationState:
    advice, content = f"delete {path.parent}, and the same command evaluates from the start", load_arrays(path)
    names = [name.removeprefix("flags/") for name in content if name.startswith("flags/")]
    if not {f"{part}/{name}" for part in _PARTS for name in names} <= content.keys():
        raise UserError(f"{path} is of another version of dkl: {advice}")
    found = {name: AttackProgress(*(content[f"{part}/{name}"] for part in _PARTS)) for name in names}
    if images is not None and "clean" in found and (size := len(found["clean"].flags)) != images:
        raise UserError(f"{path} is of {size} images, not {images}: {advice}")
    return found


def load(folder: Path | None, images: int | None = None) -> EvaluationState:
    """Combine all files in ``folder``; the state is empty without files.

    Raises UserError if one is damaged, of another version, or of another number of ``images`` if that is given.
    """
    if folder is None:
        return {}
    return merge(_load_file(path, images) for path in sorted(folder.glob("*.npz")))


class Arranged(NamedTuple):
    """An attack on images ``[B, ...]``, labels ``[B]`` and their indices ``[B]`` among all images.

    ``joint`` says that it may get several batches at once.
    """

    perturb: Callable[[Tensor, Tensor, Tensor], Tensor]
    joint: bool


UNCHANGED = Arranged(lambda x, y, chosen: x, joint=False)
"""No attack."""


def cut(correct: Bools, batch_size: int) -> tuple[Tensor, ...]:
    """Cut the indices of the images that are ``correct[N]`` into batches, as AutoAttack does before each attack."""
    return torch.from_numpy(correct).nonzero().squeeze(1).split(batch_size) if correct.any() else ()


def places(correct: Bools, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of each image in its batch and the length of that batch, ``[N]`` each; of no use if not correct."""
    number = np.cumsum(correct) - 1
    whole = correct.sum() // batch_size * batch_size
    return number % batch_size, np.where(number < whole, batch_size, correct.sum() - whole)


def draws_of(perturb: Perturb) -> Draws:
    """What the draws of an attack depend on; of one that does not say so, on whole batches."""
    draws: Draws = getattr(perturb, "draws", "whole")
    return draws


def unplaced(perturb: Perturb) -> Arranged:
    """An attack on batches as they come."""
    return Arranged(lambda x, y, chosen: perturb(x, y), joint=draws_of(perturb) == "none")


def placed(perturb: Perturb, correct: Bools, batch_size: int) -> Arranged:
    """Square for Linf, with the draws of the batches into which ``correct[N]`` is cut."""
    place, length = (torch.from_numpy(array) for array in places(correct, batch_size))
    return Arranged(lambda x, y, chosen: perturb(x, y, places=place[chosen], lengths=length[chosen]), joint=True)


def arranged(perturb: Perturb, correct: Bools, batch_size: int) -> Arranged:
    """An attack on the batches into which ``correct[N]`` is cut, on as many of them at once as its draws allow."""
    if draws_of(perturb) == "place":
        return placed(perturb, correct, batch_size)
    if draws_of(perturb) != "batch":
        return unplaced(perturb)
    number = torch.from_numpy((np.cumsum(correct) - 1) // batch_size)
    return Arranged(
        lambda x, y, chosen: perturb(x, y, batches=number[chosen].unique_consecutive(return_counts=True)[1].tolist()),
        joint=True,
    )


MOST_TOGETHER = 1000
"""Images that are attacked together at most: more gain little, and are lost if the process is killed."""

_SEARCH_COPIES = 20
"""Copies of an image that a search keeps beside the network's own memory."""


_CPU_BYTES = 2**25
"""Memory that one search may take on a CPU: a larger one leaves its caches, and is slower."""


def images_together(model: nn.Module, image: Tensor) -> int:
    """How many images like ``image[1, ...]`` a search on ``model`` holds in a quarter of the GPU's memory.

    Not in what is free now: the same evaluation again should attack the same images together. Counts what autograd
    saves for the backward pass of a second image: parameters are saved once.
    """
    on_gpu = image.device.type == "cuda"
    memory = torch.cuda.get_device_properties(image.device).total_memory // 4 if on_gpu else _CPU_BYTES
    saved = []
    for count in (1, 2):
        total = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        leaf = torch.cat([image] * count).requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(leaf)
        saved.append(total)
    each = 2 * (saved[1] - saved[0]) + _SEARCH_COPIES * image.numel() * image.element_size()
    return max(1, min(MOST_TOGETHER, memory // max(each, 1)))


IsCorrect = Callable[[Tensor, Tensor], Tensor]
"""Maps ``logits[B, C]`` and ``labels[B]`` to bool ``[B]``: which images count as correctly classified."""


class AttackLoop:
    """Attacks the images of ``task`` and keeps the progress of this process, ``state``, saved if the task has a folder.

    Everything that an attack finds is checked to lie in the task's ball and in [0, 1]. Unless ``task.together`` says
    how many images are attacked at once, that is found from the memory of the device, and halved if it runs out.
    """

    def __init__(self, task: AttackTask[Any], state: EvaluationState) -> None:
        self.task, self.state = task, state
        self.together, self.batch_size = task.together, task.protocol.batch_size

    @classmethod
    def of(cls, task: AttackTask[Any], start: Mapping[str, AttackProgress] | None = None) -> "AttackLoop":
        """The loop of ``task`` from the saved progress of all processes, and from attacks that are finished."""
        # No process writes before all have read: gather waits for every process.
        return cls(task, {**(start or {}), **merge(gather(load(task.folder, len(task.labels))))})

    def attack(
        self,
        criteria: Mapping[str, IsCorrect],
        attack: Arranged,
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
        with bar(first, total, reached, stderr_console(self.task.quiet)) as progress, ExitStack() as hooks:
            for model in {self.task.classifier, self.task.searched}:
                hooks.enter_context(model.register_forward_hook(lambda *_: progress.advance()))
            waiting, count = own_batches.tolist(), finished
            while waiting:
                numbers = waiting[:1]
                if attack.joint and len(waiting) > 1:  # as many as fit together
                    sizes = np.cumsum([len(batches[number]) for number in waiting])
                    numbers = waiting[: max(1, int((sizes <= self.limit()).sum()))]
                try:
                    self._attack_batches(criteria, attack, [(number, batches[number]) for number in numbers])
                except Interrupted as stop:
                    stop.place = f"after {first} batch {count} of {finished + len(own_batches)}"
                    raise
                except (torch.OutOfMemoryError, UserError) as error:
                    # The model's own errors are reported as such.
                    if len(numbers) == 1 or not isinstance(error.__cause__ or error, torch.OutOfMemoryError):
                        raise
                    self.together = sum(len(batches[number]) for number in numbers) // 2
                    continue
                waiting, count = waiting[len(numbers) :], count + len(numbers)
                # One of several processes knows only its own share, so its percentage would mislead.
                share = f"{self.state[first].flags.mean():.2%} still correct"
                progress.reach(passes * count, f"process 1 of {world()}" if world() > 1 else share)
        # The next attack's batches are cut from the flags of all processes.
        self.state |= merge(gather({name: self.state[name] for name in criteria}))
        return self.state[first].flags

    def limit(self) -> int:
        """How many images are attacked at once."""
        if self.together is None:
            self.together = images_together(self.task.searched, scaled(self.task.images[:1]).to(self.task.device))
        return self.together

    def _attack_batches(
        self, criteria: Mapping[str, IsCorrect], attack: Arranged, numbered: Sequence[tuple[int, Tensor]]
    ) -> None:
        """Attack the images of batches, given by their numbers and indices, together; save the result."""
        task, started = self.task, time.perf_counter()
        chosen = torch.cat([batch for _, batch in numbered])
        if len(chosen):  # otherwise all images are known from a sample
            x, y = scaled(task.images[chosen]).to(task.device), task.labels[chosen].to(task.device)
            adversarial = attack.perturb(x, y, chosen)
            if task.protocol.attacks and attack is not UNCHANGED:
                check_inside(next(iter(criteria)), adversarial, x, task.protocol.norm, task.protocol.eps)
            # Each batch in a pass of its own, as the package: a network may depend on the others of a batch.
            lengths = [len(batch) for _, batch in numbered]
            logits = torch.cat([task.classifier(part) for part in adversarial.split(lengths) if len(part)])
            found, finite = self._judged(criteria, logits, y, chosen)
        seconds, start = time.perf_counter() - started, 0
        for number, batch in numbered:
            part, start = slice(start, start + len(batch)), start + len(batch)
            for name in criteria:
                if len(batch):
                    self.state[name].flags[batch.numpy()] = found[name][part]
                    self.state[name].nonfinite[number] = int((~finite[part]).sum())
                self.state[name].seconds[number] = seconds * len(batch) / max(len(chosen), 1)
            if task.observe is not None and len(batch):
                name = next(iter(criteria))
                count = len(self.state[name].seconds)
                task.observe(AttackedBatch(name, number, count, batch, adversarial[part], logits[part]))
        # Every process writes only its own file, so no batch is lost to a concurrent write and no lock is needed.
        if task.folder is not None and len(chosen):
            save(self.state, task.folder / f"{rank()}.npz")

    def _judged(
        self, criteria: Mapping[str, IsCorrect], logits: Tensor, y: Tensor, chosen: Tensor
    ) -> tuple[dict[str, Bools], Tensor]:
        """Apply ``criteria`` to ``logits[B, C]``; return the flags ``[B]`` of each, and which logits are finite."""
        # argmax of NaN is an arbitrary class, so such logits would count as correct by chance.
        finite = logits.isfinite().all(-1)
        if "clean" in criteria and not finite.all():
            broken = chosen[(~finite).nonzero()[0].cpu()].item()
            raise UserError(
                f"the network's logits are not finite on {int((~finite).sum())} of {len(y)} clean images, the first of "
                f"them number {broken}: it has no accuracy; check its weights, normalization and precision"
            )
        found = {name: (is_correct(logits, y) & finite).cpu().numpy() for name, is_correct in criteria.items()}
        return found, finite
