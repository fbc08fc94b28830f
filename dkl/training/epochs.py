"""One epoch of a run: rate, steps, average, and what is measured after it."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn
from torch.optim.swa_utils import update_bn

from dkl import checkpoint
from dkl.config import Precision
from dkl.console import Bar
from dkl.data import Loader
from dkl.distributed import rank, share_buffers
from dkl.errors import UserError
from dkl.tasks.accuracy import correct
from dkl.training.loop import NonFiniteLossError, train_epoch
from dkl.training.metrics import MetricsRow
from dkl.training.optimizer import set_schedule
from dkl.training.selection import Selection, mean_over_ranks
from dkl.training.state import RunState


@dataclass
class Epochs:
    """The epochs of ``run`` over ``batches``; ``folder`` takes the file that a loss which is not finite leaves.

    ``selection`` measures robust accuracy on held-out images, where it is asked for.
    """

    cfg: DictConfig
    run: RunState
    batches: Loader
    validation: Loader
    selection: Selection | None
    folder: Path
    progress: Bar

    def train(self, epoch: int) -> MetricsRow:
        """Train epoch ``epoch``, counted from 1; its row of metrics, with test accuracy where it is due."""
        epochs, every = self.cfg.trainer.epochs, self.cfg.trainer.validate_every
        row: MetricsRow = {"epoch": epoch, "lr": set_schedule(self.cfg.optimizer, self.run.optimizer, epoch, epochs)}
        row |= self._steps(epoch)
        last = epoch == epochs
        self._follow("epoch", epoch, epochs)
        if last:
            self._estimate_buffers()
        if last or (every and epoch % every == 0):
            row["test_accuracy"] = self._test(self.run.model)
            if self.run.average is not None:
                row["average_test_accuracy"] = self._test(self.run.average.model)
        if self.selection:
            row |= self.selection.after(epoch, epochs)
        return row

    def _test(self, model: nn.Module) -> float:
        return mean_over_ranks(correct(model, self.validation.epoch()))

    def _steps(self, epoch: int) -> MetricsRow:
        """All steps of ``epoch``. Raises UserError where the loss is not finite, and keeps what made it so."""
        epochs, steps = self.cfg.trainer.epochs, len(self.batches)
        try:
            return train_epoch(
                self.run.task,
                self.batches,
                self.run.optimizer,
                epoch=epoch,
                epochs=epochs,
                bar=self.progress,
                accumulate=self.cfg.trainer.accumulate,
                autocast=self.cfg.trainer.precision is Precision.bf16,
                after_step=lambda step: self._follow("step", (epoch - 1) * steps + step + 1, epochs * steps),
            )
        except NonFiniteLossError as error:
            raise self._report(error) from None

    def _follow(self, per: str, done: int, total: int) -> None:
        """Have the average, where it is kept per ``per``, follow the weights."""
        average = self.run.average
        if average is not None and average.rule.per == per:
            average.update(self.run.model, done, total)

    def _estimate_buffers(self) -> None:
        """BatchNorm's statistics of the averaged weights on natural training images, where they are asked for."""
        average = self.run.average
        if average is not None and average.rule.buffers == "estimate":
            update_bn(self.batches.epoch(0), average.model)
            share_buffers(average.model)

    def _report(self, error: NonFiniteLossError) -> UserError:
        """Write what gave a loss that is not finite; returns the message with the file's name and the mend."""
        progress = error.progress
        path = self.folder / f"nonfinite-epoch{progress.epoch}-batch{progress.step}-rank{rank()}.pt"
        content = {
            "model": self.run.model.state_dict(),
            "task": self.run.task.state_dict(),
            "images": error.batch.images,
            "labels": error.batch.labels,
            "adversarial_images": error.out.adversarial_images,
            "loss": error.out.loss.item(),
            "epoch": progress.epoch,
            "batch": progress.step,
            "config": self.run.config,
        }
        checkpoint.save(path, content)
        return UserError(
            f"{error}; {path} holds that batch, its adversarial images and the weights before the step. The checkpoint "
            "of the last finished epoch is kept. Lower optimizer.lr or the loss weights, or train in float32 if "
            "trainer.precision is bf16"
        )
