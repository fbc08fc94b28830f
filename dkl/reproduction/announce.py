"""Prints the plan of ``dkl reproduce`` with the time it takes, and refuses what would take weeks."""

from collections.abc import Sequence

from omegaconf import OmegaConf

from dkl.config import TrainConfig
from dkl.config.compose import choices
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest, Request, load, own_sizes
from dkl.manifests.jobs import may_change_rows
from dkl.reproduction.estimate import JobEstimate, PassSeconds, assumed, estimate, measure
from dkl.reproduction.options import Options
from dkl.reproduction.planning import PlannedJob
from dkl.reproduction.remaining import Remaining
from dkl.reproduction.spans import NONE, total
from dkl.runtime.device import accelerator, pick_device

MEASURED = "on this machine, a range from a few measured passes"
ASSUMED = "on one H100, a wide range: it rests on assumed speeds, nothing is measured"
CORRECTED = "by the epochs and evaluations that are done"


def estimates(jobs: Sequence[PlannedJob]) -> tuple[list[JobEstimate], str]:
    """Estimate every job; also return what the estimates rest on. Jobs of one network share a measurement."""
    settings = jobs[0].run.settings
    on_gpu = settings.budget.name == "paper" and settings.trainer.device != "cpu"
    seconds = assumed if on_gpu and accelerator() is None else measure
    known: dict[str, PassSeconds] = {}
    found = []
    for planned in jobs:
        config = planned.run.settings
        try:
            key = _network(config)
            if key not in known:
                known[key] = seconds(config)
            found.append(estimate(planned.job, config, known[key]))
        # Images or a library are missing, which is reported before the first job; a network needs the values of its
        # images, or the device has too little memory.
        except (UserError, RuntimeError):
            found.append(no_estimate(planned))
    return found, MEASURED if seconds is measure else ASSUMED


def no_estimate(planned: PlannedJob) -> JobEstimate:
    """Return the estimate of a job whose duration is unknown."""
    return JobEstimate(NONE, (NONE,) * len(planned.job.evaluations), 0)


def _network(config: TrainConfig) -> str:
    """Return what the seconds of a pass depend on, as text."""
    trainer = config.trainer
    batches = (trainer.batch_size, trainer.devices, trainer.accumulate, config.evaluation.batch_size)
    return f"{OmegaConf.to_yaml(config.model)} {config.data.shape} {batches} {trainer.precision} {trainer.threads}"


def print_plan(manifest: Manifest, jobs: Sequence[PlannedJob], remaining: Remaining, basis: str) -> None:
    """Print each job with its progress and the time that is left; ``basis`` is what the estimates rest on."""
    settings = jobs[0].run.settings
    budget = settings.budget.name
    say(f"{manifest.title}: {len(jobs)} runs at budget {budget}, into {settings.paths.results}")
    say(f"  {choices('budget')[budget]}")
    spans, corrected = remaining()
    for number, (planned, left) in enumerate(zip(jobs, spans, strict=True), 1):
        takes = f", {left}" if left.high else ""
        say(f"  {number}/{len(jobs)}  {planned.title}: {planned.progress}{takes}  {planned.run.folder}")
    if (left := total(spans)).high:
        say(f"  left: {left} {basis}{f', corrected {CORRECTED}' if corrected else ''}")


def warn_of_changed_rows(manifest: Manifest, jobs: Sequence[PlannedJob], request: Request) -> None:
    """Print a warning if overrides of the command make rows that the manifest's own table does not show."""
    rows = dict.fromkeys(planned.job.name for planned in jobs if planned.job.changed)
    if not rows or not manifest.columns:
        return
    given = ", ".join(may_change_rows(request.overrides))
    place = "sizes" if own_sizes(manifest, request.budget) else f"at: {request.budget}"
    say(
        f"warning: with {given} the table and the claims of {manifest.name} leave out {', '.join(rows)}, whose records "
        f"only other tables show; to have them there, add [{given}] to {place} in experiments/{manifest.name}.yaml"
    )


def refuse_paper_on_cpu(options: Options, jobs: Sequence[PlannedJob], remaining: Remaining) -> None:
    """Raise UserError if jobs of budget paper would run on a CPU without ``trainer.device=cpu``."""
    settings = jobs[0].run.settings
    if settings.budget.name != "paper" or all(planned.done for planned in jobs):
        return
    if settings.trainer.device != "auto" or pick_device("auto").type != "cpu" or options.launcher:
        return
    left = total(remaining()[0])
    rough = f" (a rough range for one H100: {left})" if left.high else ""
    request, option = options.request, load(options.name).option
    row = f" row={request.row}" if request.row else ""
    seeds = f" seed={','.join(map(str, request.seeds))}" if request.seeds else ""
    command = f"dkl reproduce {option}{row}{seeds}"
    raise UserError(
        f"budget=paper needs a GPU, and this machine has none{rough}: use {command} budget=mini (a "
        f"smaller version for CPUs), {command} budget=smoke (seconds, to see that it runs), "
        "or add trainer.device=cpu to run it here all the same"
    )
