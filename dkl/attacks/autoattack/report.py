"""What a run of the class ``AutoAttack`` leaves: adversarial images, their predicted classes, and the printed lines.

Images are saved beside the progress as soon as their batch is done, so that a run that continues returns them too.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dkl.attacks.autoattack.classifier import scaled
from dkl.attacks.autoattack.suite import Attacked
from dkl.attacks.autoattack.task import AttackedBatch, AttackTask
from dkl.attacks.named import is_misclassified
from dkl.attacks.own import distances
from dkl.errors import UserError
from dkl.storage.files import damage, write_atomically
from dkl.threat import NORM_TITLES


class Log:
    """Prints lines, and appends them to the file ``path`` if that is given."""

    def __init__(self, path: str | Path | None) -> None:
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise UserError(f"log_path={path}: there is no folder {Path(path).parent}; make it first")
        if path is not None and Path(path).is_dir():
            raise UserError(f"log_path={path} is a folder: give a file in it, such as {Path(path) / 'log.txt'}")
        self.path = path

    def log(self, text: str) -> None:
        """Print ``text``."""
        print(text)
        if self.path is not None:
            with Path(self.path).open("a", encoding="utf-8") as file:
                file.write(text + "\n")


class _Fooled(NamedTuple):
    """The indices ``[K]`` of images, their predicted classes and, unless they are clean, the adversarial images."""

    numbers: Tensor
    predicted: Tensor
    images: Tensor | None


class AttackReport:
    """Collects what ``task`` finds, in images ``adversarial[N, C, H, W]`` and ``predicted[N]`` classes on the CPU.

    Prints the lines of the authors' code to ``log`` if there is one.
    """

    def __init__(self, task: AttackTask[Any], log: Log | None) -> None:
        self.task, self.log, self.started = task, log, time.time()
        self.adversarial = scaled(task.images).cpu().clone()
        self.predicted = torch.full_like(task.labels, -1)
        self.current, self.total = "", len(task.labels)
        self.robust = torch.ones(self.total, dtype=torch.bool)
        self.folder = None if task.folder is None else task.folder / "images"
        saved = self.folder.glob("*.pt") if self.folder is not None else ()
        for path in sorted(saved, key=lambda path: (not path.name.startswith("clean-"), path.name)):
            if why := damage(path):
                raise UserError(f"{path} is damaged ({why}): delete {task.folder}, and the same call starts again")
            self._take(_Fooled(*torch.load(path, weights_only=True)))

    def observe(self, batch: AttackedBatch) -> None:
        """Take the images that ``batch`` fooled, save them, and print how many."""
        labels = self.task.labels[batch.chosen]
        wrong = is_misclassified(batch.logits, labels.to(batch.logits.device))
        predicted = batch.logits.argmax(1)
        if batch.attack == "clean":
            found = _Fooled(batch.chosen, predicted.cpu(), None)
        else:
            images = self._tightened(batch.adversarial[wrong], batch.chosen[wrong.cpu()], predicted[wrong])
            found = _Fooled(batch.chosen[wrong.cpu()], predicted[wrong].cpu(), images)
        if self.folder is not None and len(found.numbers):
            path = self.folder / f"{batch.attack}-{batch.number}.pt"
            write_atomically(path, lambda file: torch.save(tuple(found), file))
        if batch.attack != self.current:
            self._end_attack(batch.attack)
        self._take(found, robust=~wrong.cpu() if batch.attack == "clean" else None)
        if self.log is not None and batch.attack != "clean":
            count = f"{len(found.numbers)} out of {len(batch.chosen)} successfully perturbed"
            self.log.log(f"{batch.attack} - {batch.number + 1}/{batch.batches} - {count}")

    def _take(self, found: _Fooled, robust: Tensor | None = None) -> None:
        self.predicted[found.numbers] = found.predicted
        if found.images is not None:
            self.adversarial[found.numbers] = found.images
            self.robust[found.numbers] = False
        else:
            right = found.predicted == self.task.labels[found.numbers] if robust is None else robust
            self.robust[found.numbers] = right

    @torch.no_grad()
    def _tightened(self, images: Tensor, numbers: Tensor, predicted: Tensor) -> Tensor:
        """``images[K, ...]``, moved back by the last digits beyond the ball if they then still fool the network."""
        if not len(images):
            return images.cpu()
        x, protocol = scaled(self.task.images[numbers]).to(images), self.task.protocol
        if protocol.norm == "linf":
            closer = images
            for _ in range(2):  # x + eps rounds by at most one unit, and so does the difference
                far = (closer.double() - x.double()).abs() > protocol.eps
                closer = torch.where(far, torch.nextafter(closer, x), closer)
        else:
            beyond = distances(images, x, protocol.norm).div_(protocol.eps).clamp_min_(1).sub_(1)
            scale = torch.where(beyond > 0, 1 - beyond - 2**-22, 1.0).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
            closer = torch.where(scale < 1, x + (images - x) * scale, images)
        moved = (closer != images).flatten(1).any(1)
        if moved.any():
            again = self.task.classifier(closer[moved])
            moved[moved.clone()] = is_misclassified(again, self.task.labels[numbers].to(again.device)[moved])
        return torch.where(moved.view(-1, *[1] * (x.ndim - 1)), closer, images).cpu()

    def _end_attack(self, following: str = "") -> None:
        """Print the accuracy after the current attack, and go on to the ``following`` one."""
        if self.log is not None and self.current:
            accuracy, seconds = self.robust.double().mean(), time.time() - self.started
            if self.current == "clean":
                self.log.log(f"initial accuracy: {accuracy:.2%}")
            else:
                self.log.log(
                    f"robust accuracy after {self.current.upper()}: {accuracy:.2%} (total time {seconds:.1f} s)"
                )
        self.current = following

    def finish(self, attacked: Attacked[Any]) -> None:
        """Print the last lines: what was moved how far, and the accuracy, or its bounds after attacks on a sample."""
        self._end_attack()
        if self.log is None:
            return
        norm, found = self.task.protocol.norm, self.adversarial
        largest = distances(found, scaled(self.task.images).cpu(), norm).max()
        self.log.log(
            f"max {NORM_TITLES[norm]} perturbation: {largest:.5f}, nan in tensor: {found.isnan().sum()}, "
            f"max: {found.max():.5f}, min: {found.min():.5f}"
        )
        if attacked.sample is None:
            last = attacked.protocol.attacks[-1]
            self.log.log(f"robust accuracy: {np.mean(attacked.state[last].flags):.2%}")
        else:
            lowest, highest = attacked.sample.bounds
            self.log.log(f"robust accuracy: {lowest:.2%} to {highest:.2%} with 95 % confidence")
