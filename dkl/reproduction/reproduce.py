"""``dkl reproduce table=N | figure=N | experiment=NAME``: train, evaluate and tabulate everything in a manifest.

First it prints the plan: which jobs are done, which continue, which start, and how long that takes. Finished work is
never repeated, so after an interruption the same command continues. Two such commands on one results folder never take
the same job at the same time. Failed rows are reported at the end; the others continue.
"""

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from omegaconf import OmegaConf

from dkl.config import EvaluateConfig, check_known
from dkl.config.compose import choices, typed
from dkl.config.overrides import check_hydras_own, compose_explained, quoted
from dkl.console import say
from dkl.errors import UserError, needs_extra
from dkl.manifests import Manifest, Request, keep, load, own_sizes
from dkl.manifests.jobs import may_change_rows, rows_named
from dkl.options import default_results
from dkl.reporting import write_tables
from dkl.reporting.grouping import group
from dkl.reproduction.durations import NONE, JobEstimate, PassSeconds, Remaining, assumed, estimate, measure
from dkl.reproduction.planning import Options, PlannedJob, parse, plan_jobs
from dkl.reproduction.worker import launch, run_jobs
from dkl.runtime import launched
from dkl.runtime.device import accelerator, pick_device
from dkl.runtime.distributed import process_group
from dkl.storage.files import check_writable
from dkl.validation import check_fields


def reproduce(arguments: list[str]) -> None:
    """Run the command. Exits with 1 if a row failed, after all others are done.

    With torchrun all its processes share the work of each row, and a row that fails ends the command.
    """
    options, first = parse(arguments), os.environ.get("RANK", "0") == "0"
    check_hydras_own("reproduce", options.launcher)
    if options.published:
        reproduce_published(options)
        return
    manifest, jobs = load(options.name), plan_jobs(options)
    failures: dict[str, str] = {}
    predicted, basis = estimates(jobs) if first else ([no_estimate(planned) for planned in jobs], "")
    remaining = Remaining(jobs, predicted, failures)
    print_plan(manifest, jobs, remaining, basis)
    warn_of_changed_rows(manifest, jobs, options.request)
    if options.dry_run:
        for planned in jobs if first else ():
            print(planned.job.commands(str(planned.run.folder)))
        return
    refuse_paper_on_cpu(options, jobs, remaining)
    if manifest.kind == "figure" or options.html:
        with needs_extra("figures"):
            for library in ("matplotlib", *(["sklearn"] if manifest.pictures else [])):
                import_module(library)
    for planned in jobs:
        check_writable(planned.run.folder)
    if options.name.endswith(".yaml") and first:
        keep(Path(options.name), Path(jobs[0].run.settings.paths.results), options.request.overrides)
    started = time.monotonic()
    failures |= find_blocked(jobs)
    kind = pick_device(jobs[0].run.settings.trainer.device).type
    with remaining.watched(), process_group(kind) if launched() > 1 else nullcontext():
        if options.launcher:
            launch(options, jobs, list(failures))
        else:
            run_jobs(jobs, failures, remaining.say)
    if not first:  # of several processes that torchrun has started
        return
    if options.launcher:
        left = [planned for planned in plan_jobs(options) if not planned.done]
        failures = {planned.title: f"{planned.progress}: see its log" for planned in left} | failures
    minutes = (time.monotonic() - started) / 60
    say(f"{len(jobs) - len(failures)} of {len(jobs)} runs done in {minutes:.1f} min")
    try:
        if len(failures) < len(jobs):
            show_results(manifest, jobs, html=options.html)
    finally:  # also if the results cannot be shown, such as on a full disk
        for reason, titles in group(failures, failures.__getitem__).items():
            say(f"failed: {', '.join(titles)}: {reason}")
    if failures:
        raise SystemExit(1)
    say(manifest.next or "Next: dkl train --help lists all options")


def reproduce_published(options: Options) -> None:
    """Evaluate the published network of every row, and write and print the table; overrides are of dkl evaluate.

    AutoAttack is bounded on a CPU and standard elsewhere unless the overrides say otherwise. All are checked before the
    first is attacked. Exits with 1 if a row failed, after all others are done. Raises UserError if no row has one.
    """
    from dkl.evaluation import evaluate, preflight

    manifest, overrides = load(options.name), options.request.overrides
    rows = rows_named(manifest, options.request.row)
    networks = {row.name: network for row in rows if (network := manifest.network(row))}
    if not networks:
        what = f"row {rows[0].name} of {manifest.name} has no" if len(rows) == 1 else f"no row of {manifest.name} has"
        raise UserError(f"{what} published weights: leave out weights=published, or choose table=2 or table=3")
    given = dict(text.partition("=")[::2] for text in overrides)
    results = Path(given.get("paths.results", default_results()).strip("'\""))
    kind = pick_device(given.get("device", "auto")).type
    shared = [] if "attacks" in given else [f"attacks={'bounded' if kind == 'cpu' else 'standard'}"]
    shared += [*([] if "paths.results" in given else [f"paths.results={quoted(str(results))}"]), *overrides]
    configs, failures = {}, {}
    for name, network in networks.items():
        chosen = [f"data={network.dataset}", f"network={quoted(network.name)}"]
        cfg = compose_explained("evaluate", [*chosen, *shared])
        check_known(cfg, EvaluateConfig)
        check_fields(typed(cfg, EvaluateConfig))
        if options.dry_run:
            print(shlex.join(["dkl", "evaluate", f"model={network.name}", f"data={network.dataset}", *shared]))
            continue
        try:
            configs[name] = cfg
            preflight(configs[name])
        except UserError as error:
            failures[name] = str(error)
    if configs and options.name.endswith(".yaml"):
        keep(Path(options.name), results, ())
    evaluated = 0
    for number, (name, cfg) in enumerate(((n, c) for n, c in configs.items() if n not in failures), 1):
        say(f"{number}/{len(networks)}  {name}: {networks[name].name}")
        try:
            evaluate(cfg)
            evaluated += 1
        except UserError as error:
            failures[name] = str(error)
    if evaluated:
        print(write_tables(results).text_of(manifest.name))
        say(f"Tables (md, csv, tex, html): {results}/tables/{manifest.name}-*")
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}")
    if failures:
        raise SystemExit(1)


def estimates(jobs: Sequence[PlannedJob]) -> tuple[list[JobEstimate], str]:
    """Estimate every job; also return what the estimates rest on. Jobs of one network share a measurement."""
    settings = jobs[0].run.settings
    on_gpu = settings.budget.name == "paper" and settings.trainer.device != "cpu"
    seconds = assumed if on_gpu and accelerator() is None else measure
    known: dict[str, PassSeconds] = {}  # by what the seconds of a pass depend on
    every = []
    basis = "on one H100, a wide range: it rests on assumed speeds, nothing is measured"
    if seconds is measure:
        basis = "on this machine, a range from a few measured passes"
    for planned in jobs:
        config, trainer = planned.run.settings, planned.run.settings.trainer
        batches = (trainer.batch_size, trainer.devices, trainer.accumulate, config.evaluation.batch_size)
        try:
            network = f"{OmegaConf.to_yaml(config.model)} {config.data.shape}"
            key = f"{network} {batches} {trainer.precision} {trainer.threads}"
            if key not in known:
                known[key] = seconds(config)
            every.append(estimate(planned.job, config, known[key]))
        # Images or a library are missing, which is reported before the first job; a network needs the values of its
        # images, or the device has too little memory.
        except (UserError, RuntimeError):
            every.append(no_estimate(planned))
    return every, basis


def no_estimate(planned: PlannedJob) -> JobEstimate:
    """Return the estimate of a job whose duration is unknown."""
    return JobEstimate(NONE, (NONE,) * len(planned.job.evaluations), 0)


def find_blocked(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Titles of the jobs whose images or libraries are missing, with the reason, which is printed.

    It is called before the first job: a table may take weeks, and its last row should not fail then.
    """
    from dkl.assembly import load_data, load_synthetic

    blocked: dict[str, str] = {}
    datasets: dict[str, str | None] = {}  # the error if the images cannot be loaded or downloaded
    for planned in (planned for planned in jobs if not planned.done):
        key, data = OmegaConf.to_yaml(planned.run.cfg.data, resolve=True), planned.run.settings.data
        if key not in datasets:
            try:
                load_synthetic(data)
                load_data(data)
                datasets[key] = None
            except UserError as error:
                datasets[key] = str(error)
        if reason := planned.missing_library or datasets[key]:
            blocked[planned.title] = reason
    for reason, titles in group(blocked, blocked.__getitem__).items():
        say(f"cannot run {', '.join(titles)}: {reason}")
    return blocked


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
    if (left := sum(spans, NONE)).high:
        say(f"  left: {left} {basis}{', corrected by the epochs and evaluations that are done' if corrected else ''}")


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
    left = sum(remaining()[0], NONE)
    rough = f" (a rough range for one H100: {left})" if left.high else ""
    request, manifest = options.request, load(options.name)
    option = f"experiment={options.name}" if options.name.endswith(".yaml") else manifest.option
    row = f" row={request.row}" if request.row else ""
    seeds = f" seed={','.join(map(str, request.seeds))}" if request.seeds else ""
    command = f"dkl reproduce {option}{row}{seeds}"
    raise UserError(
        f"budget=paper needs a GPU, and this machine has none{rough}: use {command} budget=mini (a "
        f"smaller version for CPUs), {command} budget=smoke (seconds, to see that it runs), "
        "or add trainer.device=cpu to run it here all the same"
    )


def show_results(manifest: Manifest, jobs: Sequence[PlannedJob], *, html: bool) -> None:
    """Write all tables, print the manifest's own, draw its figure (all and the page if ``html``), print the paths."""
    settings, is_figure = jobs[0].run.settings, manifest.kind == "figure"
    results, smoke = Path(settings.paths.results), settings.budget.name == "smoke"
    report = write_tables(results, include_smoke=smoke)
    if table := manifest.figure.get("table") if is_figure else manifest.name:
        print(report.text_of(table, settings.budget.name))
    for problem in report.problems:
        say(f"left out: {problem}")
    figures = []
    if is_figure or html:
        from dkl.reporting.figures import draw_all

        if manifest.pictures:
            _collect_pictures(jobs, manifest.pictures)
        figures = draw_all(report.records, results, report.manifests, smoke, "" if html else manifest.name)
    for path in figures if is_figure else []:
        say(f"drawn: {path}")
    entries = f"   RobustBench entries: {results}/model_info" if (results / "model_info").is_dir() else ""
    say(f"Tables (md, csv, tex, html): {results}/tables{entries}")
    say(f"Records: {results}/records   Runs with curves and checkpoints: {results}/runs")
    if html:
        from dkl.reporting.site import write_site

        page = write_site(results, report.records, report.boards, figures, report.problems, report.manifests)
        say(f"Page with tables, curves, figures and attacked images: {page}")
    else:
        command = ["dkl", "tables", "--html", f"results={results}", *(["smoke=true"] if smoke else [])]
        say(f"One page with everything: {shlex.join(command)}")


def _collect_pictures(jobs: Sequence[PlannedJob], overrides: Sequence[str]) -> None:
    """Collect the features and images that figures need, from every trained run; ``overrides`` name the attack.

    A run that is not complete is named, and the others are drawn.
    """
    from dkl import evaluation

    for planned in jobs:
        if (planned.run.folder / "checkpoint.pt").is_file():
            try:
                evaluation.collect_pictures(planned.run.evaluation(overrides))
            except UserError as error:
                say(f"no pictures of {planned.title}: {error}")
