"""One epoch of a run: learning rate, steps, average, and the measurements after it."""

from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.optim.swa_utils import update_bn

from dkl import checkpoint
from dkl.config import Precision
from dkl.console import Bar
from dkl.distributed import mean_over_ranks, rank, share_buffers
from dkl.errors import UserError
from dkl.tasks.accuracy import correct
from dkl.training.loop import NonFiniteLossError, train_epoch
from dkl.training.metrics import MetricsRow
from dkl.training.optimizer import apply_schedule
from dkl.training.run import Run
from dkl.training.selection import Selection


@dataclass
class Epochs:
    """Trains the epochs of ``run``, with robust accuracy on held-out images if there is a ``selection``."""

    run: Run
    selection: Selection | None
    progress: Bar

    def train(self, epoch: int) -> MetricsRow:
        """Train epoch ``epoch``, counted from 1; returns its metrics, with test accuracy if that is due."""
        run, state = self.run, self.run.state
        epochs, every = run.trainer.epochs, run.trainer.validate_every
        lr = self._apply_schedule(epoch)
        row: MetricsRow = {"epoch": epoch, "lr": lr}
        row |= self._steps(epoch)
        last = epoch == epochs
        # The average is updated before anything is measured, so that its accuracy includes this epoch.
        self._update_average("epoch", epoch, epochs)
        if last:
            self._estimate_buffers()
        if last or (every and epoch % every == 0):
            row["test_accuracy"] = self._test(state.model)
            if state.average is not None:
                row["average_test_accuracy"] = self._test(state.average.model)
        if self.selection:
            row |= self.selection.after(epoch, epochs)
        return row

    def _test(self, model: nn.Module) -> float:
        accuracy, _ = mean_over_ranks(correct(model, self.run.validation.epoch()))
        return accuracy

    def _apply_schedule(self, epoch: int, step: int = 0) -> float:
        """Set the rate of ``step``, counted from 0, of ``epoch``; returns it."""
        run, steps = self.run, len(self.run.batches)
        now, total = epoch, run.trainer.epochs
        if run.schedule.per == "step":
            now, total = (epoch - 1) * steps + step + 1, total * steps
        return apply_schedule(run.schedule, run.state.optimizer, lr=run.peak_lr, epoch=now, epochs=total)

    def _steps(self, epoch: int) -> MetricsRow:
        """Take all steps of ``epoch``. Raises UserError if a loss is not finite, and writes what gave it to a file."""
        run, epochs, steps = self.run, self.run.trainer.epochs, len(self.run.batches)
        try:
            return train_epoch(
                run.state.task,
                run.batches,
                run.state.optimizer,
                epoch=epoch,
                epochs=epochs,
                bar=self.progress,
                accumulate=run.trainer.accumulate,
                autocast=run.trainer.precision is Precision.bf16,
                before_step=partial(self._apply_schedule, epoch),
                after_step=lambda step: self._update_average("step", (epoch - 1) * steps + step + 1, epochs * steps),
            )
        except NonFiniteLossError as error:
            raise self._report(error) from None

    def _update_average(self, per: str, done: int, total: int) -> None:
        """Update the average after update ``done`` of ``total`` if the run averages per ``per``."""
        average = self.run.state.average
        if average is not None and average.rule.per == per:
            average.update(self.run.state.model, done, total)

    def _estimate_buffers(self) -> None:
        """Estimate BatchNorm's statistics of the averaged weights on natural training images, if the rule says so."""
        average = self.run.state.average
        if average is not None and average.rule.buffers == "estimate":
            # Epoch 0 has draws of its own: training counts from 1.
            update_bn(self.run.batches.epoch(0), average.model)
            share_buffers(average.model)

    def _report(self, error: NonFiniteLossError) -> UserError:
        """Write the batch and weights of a loss that is not finite; returns an error with the file's name and a fix."""
        progress, state = error.progress, self.run.state
        path = self.run.folder / f"nonfinite-epoch{progress.epoch}-batch{progress.step}-rank{rank()}.pt"
        content = {
            "model": state.model.state_dict(),
            "task": state.task.state_dict(),
            "images": error.batch.images,
            "labels": error.batch.labels,
            "adversarial_images": error.out.adversarial_images,
            "loss": error.out.loss.item(),
            "epoch": progress.epoch,
            "batch": progress.step,
            "config": state.config,
        }
        # Everything that the step needs, so that the failure can be repeated without the run.
        checkpoint.save(path, content)
        return UserError(
            f"{error}; {path} holds that batch, its adversarial images and the weights before the step. The checkpoint "
            "of the last finished epoch is kept. Lower optimizer.lr or the loss weights, or train in float32 if "
            "trainer.precision is bf16"
        )
