"""One epoch of a run: learning rate, steps, average, and the measurements after it.

A signal that asks the run to end is answered after the current step: the state is saved if that is quick, with what the
epoch has measured so far, and the same command continues with the next step.
"""

from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.optim.swa_utils import update_bn

from dkl.config import Precision
from dkl.console import Bar
from dkl.errors import UserError
from dkl.runtime.distributed import barrier, gather, largest, rank, share_buffers, world
from dkl.runtime.interruption import SAVING_SECONDS, Deferral, Interrupted
from dkl.storage import checkpoint
from dkl.training.loop import EpochSums, NonFiniteLossError, merged, train_epoch
from dkl.training.metrics import MetricsRow
from dkl.training.optimizer import apply_schedule
from dkl.training.run import Run
from dkl.training.selection import Selection


@dataclass
class Epochs:
    """Trains the epochs of ``run``, with robust accuracy on held-out images if there is a ``selection``.

    ``deferral`` holds the signal that asks the run to end, if any.
    """

    run: Run
    selection: Selection | None
    progress: Bar
    deferral: Deferral

    def train(self, epoch: int) -> MetricsRow:
        """Train epoch ``epoch``, counted from 1; returns its metrics, with test accuracy if that is due."""
        run, state = self.run, self.run.state
        epochs, every = run.trainer.epochs, run.trainer.validate_every
        row: MetricsRow = dict(state.partial.get("row", {})) or self._steps_and_average(epoch)
        last = epoch == epochs
        # Measuring changes nothing that is saved: a run interrupted in it measures again, without the steps before it.
        state.partial = {"step": len(run.batches), "row": dict(row)}
        state.collect_rng()
        try:
            row |= self._measure(epoch, measure=last or bool(every and epoch % every == 0))
        except Interrupted as stop:
            saved = self._save_partial()
            stop.place = f"after the last batch of epoch {epoch} of {epochs}" if saved else ""
            raise
        except (UserError, OSError):  # such as a test image that cannot be read: no signal waits, so large states too
            if rank() == 0:
                run.save()
            raise
        state.partial = {}
        return row

    def _steps_and_average(self, epoch: int) -> MetricsRow:
        """Take the steps of ``epoch``, those before an interruption excepted, and update the average."""
        epochs, lr = self.run.trainer.epochs, self._apply_schedule(epoch)
        row = {"epoch": epoch, "lr": lr, **self._steps(epoch)}
        # The average is updated before anything is measured, so that its accuracy includes this epoch.
        self._update_average("epoch", epoch, epochs)
        if epoch == epochs:
            self._estimate_buffers()
        if (average := self.run.state.average) is not None:
            # Its buffers follow those of this process, but all processes measure, and the first saves.
            share_buffers(average.model)
        return row

    def _measure(self, epoch: int, *, measure: bool) -> MetricsRow:
        """Measure test accuracy if asked to, and robust accuracy if it is due."""
        state = self.run.state
        row: MetricsRow = {}
        if measure:
            row |= self._test("test", state.model)
            if state.average is not None:
                row |= self._test("average_test", state.average.model)
        if self.selection:
            row |= self.selection.after(epoch, self.run.trainer.epochs)
        return row

    def _test(self, prefix: str, model: nn.Module) -> MetricsRow:
        metrics = self.run.state.task.test(model, self.run.validation.epoch())
        return {f"{prefix}_{name}": value for name, value in metrics.items()}

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
        so_far = self._resume()
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
                after_step=lambda step: self._after_step((epoch - 1) * steps + step + 1, so_far),
                so_far=so_far,
            )
        except NonFiniteLossError as error:
            raise self._report(error) from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"BatchNorm cannot normalize a part of one image in epoch {epoch}: choose another trainer.batch_size, "
                "set trainer.drop_last=true, or lower trainer.accumulate or trainer.devices"
            ) from None

    def _resume(self) -> EpochSums:
        """What this process has measured of the epoch before an interruption; the class prior's sums are restored."""
        state, processes = self.run.state, self.run.state.partial.get("processes", [])
        if not processes:
            return EpochSums()
        own = processes[rank()] if len(processes) == world() else merged(processes, first=rank() == 0)
        if state.task.prior is not None:
            state.task.prior.sums.copy_(own["prior_sums"])
        return EpochSums.from_state(own, self.run.batches.labels.device)

    def _after_step(self, done: int, so_far: EpochSums) -> None:
        """Update the average after step ``done`` of the run; save and end if a signal asks for it."""
        steps, epochs = len(self.run.batches), self.run.trainer.epochs
        self._update_average("step", done, epochs * steps)
        # All processes agree: they would wait for one that ends alone.
        signum = largest(self.deferral.signum)
        if not signum:
            return
        prior = self.run.state.task.prior
        mine = so_far.state_dict() | ({} if prior is None else {"prior_sums": prior.sums.cpu()})
        self.run.state.partial = {"step": so_far.step, "processes": gather(mine)}
        self.run.state.collect_rng()
        saved = self._save_partial()
        barrier()  # no process ends before the first has saved
        try:
            self.deferral.act(signum)
        except Interrupted as stop:
            stop.place = f"at epoch {(done - 1) // steps + 1} of {epochs}"
            stop.place += f", batch {so_far.step} of {steps}" if saved else ""
            raise

    def _save_partial(self) -> bool:
        """Save the state within an epoch if that is quick; return whether it was."""
        if not self.run.state.saves_within(SAVING_SECONDS):
            return False
        self.deferral.close()  # the signal was answered in time
        if rank() == 0:
            self.run.save()
        return True

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
        fix = "lower optimizer.lr or the loss weights, or train in float32 if trainer.precision is bf16"
        if self.run.unusual:
            fix = f"the likely cause is {', or '.join(self.run.unusual)}"
        return UserError(
            f"{error}; {fix}. {path} holds that batch, its adversarial images and the weights before the step; the "
            "checkpoint of the last finished epoch is kept"
        )
