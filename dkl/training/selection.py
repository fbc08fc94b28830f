"""Robust accuracy on held-out training images during training, and the weights of the best epoch.

Robust overfitting: the robust accuracy of adversarially trained networks often falls long before training ends (Rice et
al. 2020). ``best.pt`` records its epoch, which weights it holds (last or average) and the attack that chose them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from dkl.attacks import frozen_eval, named_attack, top1, uniform_noise
from dkl.config import changed_setting
from dkl.config.schema import SelectionConfig
from dkl.data import Loader
from dkl.errors import UserError
from dkl.runtime.distributed import from_first, mean_over_ranks, rank
from dkl.storage import checkpoint
from dkl.threat import Norm, parse_eps
from dkl.training.state import BEST, MetricsRow, RunState


def held_out(config: SelectionConfig, count: int) -> int:
    """Return how many of ``count`` training images are held out: ``holdout``, but at most a quarter of them."""
    return min(config.holdout, count // 4) if config.every else 0


def _kept_accuracy(path: Path, config: Mapping[str, Any]) -> float:
    """Return the robust accuracy of the weights in the file ``path``, which the run of ``config`` must have written."""
    content = checkpoint.read(path)
    accuracy = content.get("accuracy") if isinstance(content, Mapping) else None
    if not isinstance(accuracy, float) or not 0 <= accuracy <= 1 or "config" not in content:
        raise UserError(f"{path} has no robust accuracy in [0, 1]: move {path.parent} away to start again")
    if changed := changed_setting(content["config"], config):
        raise UserError(f"{path} was trained with {changed}, so it is of another run: move it away to continue")
    return accuracy


class Selection:
    """Attacks ``batches`` of held-out images after every ``config.every`` epochs; keeps the best weights in ``folder``.

    ``run`` must be loaded first if it resumes.
    """

    def __init__(self, config: SelectionConfig, run: RunState, batches: Loader, folder: Path) -> None:
        self.config, self.run, self.batches, self.path = config, run, batches, folder / BEST
        # best.pt is written before checkpoint.pt. If the process was killed in between, best.pt is one epoch ahead.
        kept = _kept_accuracy(self.path, run.config) if rank() == 0 and self.path.exists() else -1.0
        run.best = max(run.best, from_first(kept))

    def after(self, epoch: int, epochs: int) -> MetricsRow:
        """Measure robust accuracy if it is due after ``epoch``, on the averaged weights if the run has an average."""
        if epoch % self.config.every and epoch != epochs:
            return {}
        accuracy = self._robust_accuracy()
        if accuracy >= self.run.best:  # on a tie the later epoch is kept, as in DM-Improves-AT
            self.run.best = accuracy
            self._keep(epoch, accuracy)
        return {"robust_accuracy": accuracy, "best_robust_accuracy": self.run.best}

    def _robust_accuracy(self) -> float:
        config, model, eps = self.config, self.run.evaluated, parse_eps(self.config.eps)
        norm = cast(Norm, config.norm)  # dkl.config.check has refused any other
        perturb = named_attack(model, config.attack, norm=norm, eps=eps, seed=config.seed)
        noise = torch.Generator(self.batches.labels.device).manual_seed(config.seed)
        flags = []
        with frozen_eval(model), torch.no_grad():
            for batch in self.batches.epoch():
                images, labels, first = batch.images, batch.labels, batch.first
                # Every process draws the noise of the whole batch and takes its share: any number of them agrees.
                shape = (batch.total, *images.shape[1:])
                drawn = uniform_noise(shape, eps, norm, like=images, generator=noise)
                start = (images + drawn[first : first + len(images)]).clamp_(0, 1)
                adversarial = perturb(images, labels, start)
                flags.append(top1(model(adversarial), labels).cpu())
        accuracy, _ = mean_over_ranks(torch.cat(flags))
        return accuracy

    def _keep(self, epoch: int, accuracy: float) -> None:
        if rank() > 0:
            return
        content = {
            "model": self.run.evaluated.state_dict(),
            "epoch": epoch,
            "weights": "last" if self.run.average is None else "average",
            "accuracy": accuracy,
            "attack": f"{self.config.attack}, {self.config.norm} {self.config.eps}",
            "config": self.run.config,
        }
        checkpoint.save(self.path, content)
