"""One function per command, which takes the arguments after its name.

Heavy modules are imported inside, so that ``dkl --help`` is fast.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from dkl.cli import hydra_app
from dkl.cli.ends import DEFAULT_RESULTS, evaluate_next, tables_next
from dkl.console import say
from dkl.errors import UserError, choose_from, similar
from dkl.reproduction.options import parse_bool

if TYPE_CHECKING:
    from dkl.reporting.boards.entries import EntryFilter

PAPER_ON_A_CPU = (
    "warning: budget=paper needs a GPU, and this machine has none, so this may take weeks: use budget=mini (a smaller "
    "version for CPUs) or budget=smoke (seconds); trainer.device=cpu hides this warning"
)


def train(arguments: list[str]) -> None:
    """``dkl train``: one run, or a sweep with ``-m``."""
    from dkl.assembly import preflight
    from dkl.assembly import train as run
    from dkl.runtime.device import pick_device
    from dkl.training import objective

    def job(cfg: DictConfig) -> Path:
        # In the job, because a launcher may start it on a machine with a GPU.
        if cfg.budget.name == "paper" and cfg.trainer.device == "auto" and pick_device("auto").type == "cpu":
            say(PAPER_ON_A_CPU)
        return run(cfg)

    hydra_app.run("train", arguments, preflight, job, evaluate_next, objective)


def evaluate(arguments: list[str]) -> None:
    """``dkl evaluate``: make a record of a run, or of weights trained elsewhere."""
    from dkl.config.overrides import expand_network
    from dkl.evaluation import evaluate as run
    from dkl.evaluation import preflight

    arguments = expand_network(arguments)
    keys = [text.lstrip("+~").partition("=")[0] for text in arguments]
    if "run" in keys and any(key.partition(".")[0] in ("data", "model", "network") for key in keys):
        raise UserError(
            "data and model are only for checkpoint=FILE; a run has its own: leave them out with run=FOLDER"
        )
    hydra_app.run("evaluate", arguments, preflight, run, tables_next)


def reproduce(arguments: list[str]) -> None:
    """``dkl reproduce``: train, evaluate and tabulate the rows of a manifest."""
    from dkl.reproduction.reproduce import reproduce as run

    run(arguments)


def tables(arguments: list[str]) -> None:
    """``dkl tables``: make tables from the records under ``results``; with ``--html`` also figures and a page."""
    from dkl.config import compose_config
    from dkl.reproduction.results import draw, not_rewritten, tabulate, write_page

    default = compose_config("evaluate", []).paths.results
    html = "--html" in arguments
    words = [text for text in arguments if text != "--html"]
    options = _options(words, {"results": default, "smoke": "false"} | dict.fromkeys(ENTRY_OPTIONS, ""))
    results, smoke = Path(options["results"]), parse_bool("smoke", options["smoke"])
    folders = [Path(text) for text in filter(None, options["records"].strip("[]").split(","))]
    report = tabulate(results, include_smoke=smoke, folders=folders, shown=_entry_filter(options))
    print(report.markdown)
    figures = draw(results, include_smoke=smoke) if html else []
    pages = [write_page(results, report, figures)] if html else []
    for path in [*report.written, *figures, *pages]:
        say(f"written: {path}")
    for message in [*(f"left out: {problem}" for problem in report.problems), *report.skipped]:
        say(message)
    if old := not_rewritten(results, [*report.written, *figures]):
        say(f"from an earlier command and not written again, so delete what you do not need: {', '.join(old)}")


def verify(arguments: list[str]) -> None:
    """``dkl verify``: evaluate a random part of a record's images again, and compare the flags.

    Exits with 1 if the record is not verified.
    """
    from dkl.evaluation.verification import verify as run

    words = [text for text in arguments if "=" not in text]
    if len(words) != 1 or words[0].startswith("-"):
        raise UserError("name one record: dkl verify results/records/NAME.json checkpoint=FILE")
    path = Path(words[0])
    if not path.is_file():
        raise UserError(f"there is no record {path}: give the file that dkl evaluate printed")
    own = [text for text in arguments if text.startswith(("n=", "seed="))]
    numbers = _options(own, {"n": "750", "seed": ""})
    for key, value in numbers.items():
        if value and not (value.isdecimal() and (key == "n") <= int(value) < 2**63):
            raise UserError(f"{key}={value} must be a whole number, such as {key}=1000")
    if path.suffix != ".json":
        raise UserError(f"{path} is no record: give the file that ends with .json")
    rest = [text for text in arguments if "=" in text and text not in own]
    seed = int(numbers["seed"]) if numbers["seed"] else None
    found = run(path, rest, checked=int(numbers["n"]), seed=seed)
    say(found.verdict)
    if not found.agrees:
        raise SystemExit(1)
    say(f"Next: {tables_next([path], rest)}")


def export(arguments: list[str]) -> None:
    """``dkl export``: write a run's network to a folder for others, and push it to a hub if asked."""
    from dkl.sharing import export as run
    from dkl.sharing.export import check_push, push

    options = _options(arguments, dict.fromkeys(("run", "to", "weights", "push"), "") | {"format": "hf"} | _results())
    for key in ("run", "to"):
        if not options[key]:
            raise UserError(f"{key}= is missing: dkl export run=FOLDER to=FOLDER")
    if options["push"]:
        check_push(options["push"])
    if any(text.startswith("results=") for text in arguments) and not Path(options["results"]).is_dir():
        raise UserError(
            f"results={options['results']} is not a folder: give the folder of the run's records, or leave out results="
        )
    where, results = Path(options["to"]), options["results"]
    weights = options["weights"] or None
    files = run(options["run"], where, format=options["format"], weights=weights, results=results)
    for path in files:
        say(f"written: {path}")
    if options["push"]:
        say(f"pushed: {push(where, files, options['push'])}")


def _results() -> dict[str, str]:
    return {"results": os.environ.get(DEFAULT_RESULTS, "results")}


ENTRY_OPTIONS = ("records", "dataset", "norm", "eps", "architecture", "extra", "verified")
"""Options of ``dkl tables`` for boards of entries: other folders of records, and which rows are shown."""


def _entry_filter(options: dict[str, str]) -> "EntryFilter":
    """Return which rows of the boards of entries are shown. Raises UserError on a value of another kind."""
    from dkl.reporting.boards.entries import EntryFilter
    from dkl.threat import EVALUATED_NORMS, parse_eps

    if options["norm"] and options["norm"] not in EVALUATED_NORMS:
        raise UserError(f"norm={options['norm']} is unknown: {choose_from(options['norm'], EVALUATED_NORMS)}")
    flags = {key: parse_bool(key, options[key]) if options[key] else None for key in ("extra", "verified")}
    return EntryFilter(
        dataset=options["dataset"] or None,
        norm=options["norm"] or None,
        eps=parse_eps(options["eps"]) if options["eps"] else None,
        architecture=options["architecture"] or None,
        extra=flags["extra"],
        verified=flags["verified"],
    )


def runs(arguments: list[str]) -> None:
    """``dkl runs``: list the runs under ``results``; ``dkl runs compare A B …`` compares some of them."""
    from dkl.errors import needs_extra
    from dkl.reporting.formats.plain import to_plain
    from dkl.reporting.runs import comparison, draw_curves, find_run, listing, read_runs

    words = [text for text in arguments if "=" not in text]
    options = _options(
        [text for text in arguments if "=" in text], {"results": os.environ.get(DEFAULT_RESULTS, "results")}
    )
    if words and (words[0] != "compare" or len(words) < 3):
        raise UserError(
            f"dkl runs {' '.join(words)} is not complete: dkl runs lists all, dkl runs compare A B … compares"
        )
    results = Path(options["results"])
    found, problems = read_runs(results)
    if words:
        chosen = [find_run(found, name) for name in words[1:]]
        for run in chosen:
            print(f"{run.hash}  {run.folder}")
        print(f"\n{to_plain(comparison(chosen))}", end="")
        with needs_extra("figures"):
            for path in draw_curves(chosen, results / "figures"):
                say(f"drawn: {path}")
    else:
        print(to_plain(listing(found)), end="")
    for problem in problems:
        say(f"left out: {problem}")


def _options(arguments: list[str], defaults: dict[str, str]) -> dict[str, str]:
    """``defaults`` with the values of ``KEY=VALUE`` arguments. Raises UserError on another key or another form."""
    given = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if text.startswith("-"):
            hint = "".join(f", did you mean {flag}?" for flag in similar(text, ["--html", "--help"]))
            raise UserError(f"there is no flag {text!r}{hint}; --help lists the options")
        if key not in defaults:
            raise UserError(f"there is no option {key!r}: {choose_from(key, defaults)}")
        if not equals or not value:
            raise UserError(f"{text!r} is not KEY=VALUE; --help lists the options")
        given[key] = value
    return defaults | given


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "tables": tables,
    "runs": runs,
    "verify": verify,
    "export": export,
}
