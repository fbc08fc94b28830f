"""Robust accuracy on held-out training images while training goes on, and the weights of the best epoch.

Robust overfitting shows in it: the robust accuracy of adversarially trained networks often falls long before training
ends (Rice et al. 2020). ``best.pt`` says which epoch it holds, of which weights, and by which attack it was chosen.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from dkl import checkpoint
from dkl.attacks import frozen_eval, named_attack, uniform_noise
from dkl.data import Loader
from dkl.distributed import rank, sum_over_ranks
from dkl.threat import parse_eps
from dkl.training.metrics import MetricsRow
from dkl.training.state import RunState

BEST = "best.pt"


def held_out(cfg: DictConfig, count: int) -> int:
    """How many of ``count`` training images selection takes: as asked for, but at most a quarter of a small set."""
    return min(cfg.selection.holdout, count // 4) if cfg.selection.every else 0


def mean_over_ranks(flags: Tensor) -> float:
    """The accuracy of bool ``flags[n]``, of which every process holds a part."""
    counts = torch.stack([flags.sum(), torch.tensor(len(flags))])
    sum_over_ranks([counts])
    return (counts[0] / counts[1]).item()


class Selection:
    """Attacks ``batches`` of held-out images every so many epochs and keeps the best weights in ``folder``."""

    def __init__(self, cfg: DictConfig, run: RunState, batches: Loader, folder: Path) -> None:
        self.cfg, self.run, self.batches, self.path = cfg.selection, run, batches, folder / BEST
        if self.path.exists():  # it may be one epoch ahead of a checkpoint that a kill kept from being written
            run.best = max(run.best, checkpoint.read(self.path)["accuracy"])

    def after(self, epoch: int, epochs: int) -> MetricsRow:
        """Robust accuracy after ``epoch``, where it is due: on the averaged weights where an average is kept."""
        if epoch % self.cfg.every and epoch != epochs:
            return {}
        accuracy = self._robust_accuracy()
        if accuracy >= self.run.best:  # of equals the later one, as DM-Improves-AT keeps
            self.run.best = accuracy
            self._keep(epoch, accuracy)
        return {"robust_accuracy": accuracy, "best_robust_accuracy": self.run.best}

    def _robust_accuracy(self) -> float:
        cfg, model, eps = self.cfg, self.run.evaluated, parse_eps(self.cfg.eps)
        perturb = named_attack(model, cfg.attack, norm=cfg.norm, eps=eps, seed=cfg.seed)
        noise = torch.Generator(self.batches.labels.device).manual_seed(cfg.seed)
        flags = []
        with frozen_eval(model), torch.no_grad():
            for batch in self.batches.epoch():
                images, labels, first = batch.images, batch.labels, batch.first
                shape = (batch.total, *images.shape[1:])  # the whole batch's noise; each process takes its share
                drawn = uniform_noise(shape, eps, cfg.norm, like=images, generator=noise)[first : first + len(images)]
                adversarial = perturb(images, labels, (images + drawn).clamp_(0, 1))
                flags.append((model(adversarial).argmax(-1) == labels).cpu())
        return mean_over_ranks(torch.cat(flags))

    def _keep(self, epoch: int, accuracy: float) -> None:
        if rank() > 0:
            return
        content = {
            "model": self.run.evaluated.state_dict(),
            "epoch": epoch,
            "weights": "last" if self.run.average is None else "average",
            "accuracy": accuracy,
            "attack": f"{self.cfg.attack}, {self.cfg.norm} {self.cfg.eps}",
        }
        checkpoint.save(self.path, content)
