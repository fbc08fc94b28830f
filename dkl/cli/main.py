"""The program: run a command, print its help page or complete it in a shell; a user's mistake is one message.

There is one function per command, which takes the arguments after its name. Heavy modules are imported inside, so that
``dkl --help`` is fast.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl import __version__
from dkl.cli import hydra_app
from dkl.cli.help import GROUPS, USAGE, page
from dkl.cli.hydra_app import relative, results_folder
from dkl.config import check as check_values
from dkl.config import load_config, run_folder
from dkl.config.compose import choices
from dkl.config.identity import NAMED_DATASETS
from dkl.config.overrides import expand_network, quoted
from dkl.console import say
from dkl.errors import UserError, choose_from, first_line, for_the_terminal, needs_extra
from dkl.options import OPTIONS, default_results, parse_options
from dkl.runtime import launched
from dkl.runtime.interruption import Interrupted, interruptible
from dkl.storage.files import damage
from dkl.threat import LISTED, SUITES

MANY = 8
"""Up to this many runs of a sweep are named in the next command."""

COMPLETION = ("-sc", "--shell-completion")
"""Flags by which a shell asks what may follow."""


def train(arguments: list[str]) -> None:
    """``dkl train``: one run, or a sweep with ``-m``. A finished run is reported without importing torch."""

    def check(cfg: DictConfig) -> None:
        check_values(cfg)
        if not _already_trained(cfg):
            from dkl import assembly

            assembly.preflight(cfg)

    def job(cfg: DictConfig) -> Path:
        if _already_trained(cfg):
            say(f"{run_folder(cfg)}: already trained, {cfg.trainer.epochs} epochs")
            return run_folder(cfg)
        from dkl import assembly
        from dkl.runtime.device import pick_device

        # In the job, because a launcher may start it on a machine with a GPU.
        if cfg.budget.name == "paper" and cfg.trainer.device == "auto" and pick_device("auto").type == "cpu":
            say(
                "warning: budget=paper needs a GPU, and this machine has none, so this may take weeks: use budget=mini "
                "(a smaller version for CPUs) or budget=smoke (seconds); trainer.device=cpu hides this warning"
            )
        return assembly.train(cfg)

    def value(folder: Path) -> float | None:
        from dkl.training import objective

        return objective(folder)

    hydra_app.run("train", arguments, check, job, evaluate_next, value)


def _already_trained(cfg: DictConfig) -> bool:
    """Whether the run of ``cfg`` is done, and training it again would change nothing.

    Images, teachers, weights and code of your own, which may have changed, a logger and several processes are left to
    training, which looks closer.
    """
    data = cfg.data
    if data.synthetic.files or data.name not in (*NAMED_DATASETS, "generated"):
        return False
    weights = cfg.trainer.initial_weights or cfg.task.get("teacher") or cfg.task.get("encoder_weights")
    if cfg.logger or launched() or weights:
        return False
    if re.search(r"_target_: (?!dkl\.|null)", OmegaConf.to_yaml(cfg)):
        return False
    try:
        folder = run_folder(cfg)
        epochs = len((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return epochs >= cfg.trainer.epochs and load_config(folder) == cfg and not damage(folder / "checkpoint.pt")
    except (OSError, ValueError, UserError, OmegaConfBaseException):  # also what the check has yet to report
        return False


def evaluate(arguments: list[str]) -> None:
    """``dkl evaluate``: make a record of a run, or of weights trained elsewhere."""
    arguments = expand_network(arguments)
    keys = [text.lstrip("+~").partition("=")[0] for text in arguments]
    if "run" in keys and any(key.partition(".")[0] in ("data", "model", "network") for key in keys):
        raise UserError(
            "data and model are only for checkpoint=FILE; a run has its own: leave them out with run=FOLDER"
        )

    def check(cfg: DictConfig) -> None:
        from dkl import evaluation

        evaluation.preflight(cfg)

    def job(cfg: DictConfig) -> Path:
        from dkl import evaluation

        return evaluation.evaluate(cfg)

    hydra_app.run("evaluate", arguments, check, job, tables_next)


def reproduce(arguments: list[str]) -> None:
    """``dkl reproduce``: train, evaluate and tabulate the rows of a manifest."""
    from dkl.reproduction.reproduce import reproduce as run_rows

    run_rows(arguments)


def tables(arguments: list[str]) -> None:
    """``dkl tables``: make tables from the records under ``results``; with ``--html`` also figures and a page."""
    from dkl.reporting import write_tables
    from dkl.reporting.boards.entries import EntryFilter
    from dkl.reporting.tables import FORMATS

    html = "--html" in arguments
    options = parse_options("tables", [text for text in arguments if text != "--html"])
    results, smoke = Path(options["results"]), options["smoke"]
    shown = EntryFilter(
        **{key: options[key] for key in ("dataset", "norm", "eps", "architecture", "extra", "verified")}
    )
    report = write_tables(results, include_smoke=smoke, folders=options["records"], shown=shown)
    print(report.markdown)
    written = report.written
    if html:
        with needs_extra("figures"):
            from dkl.reporting.figures import draw_all
            from dkl.reporting.site import write_site

        figures = draw_all(report.records, results, report.manifests, smoke)
        page = write_site(results, report.records, report.boards, figures, report.problems, report.manifests)
        written = [*written, *figures, page]
    for path in written:
        say(f"written: {path}")
    for message in [*(f"left out: {problem}" for problem in report.problems), *report.skipped]:
        say(message)
    # Tables and figures of earlier commands may show records that are gone or renamed. Only files in all formats count:
    # the others are not of dkl.
    now = {path.with_suffix("") for path in written}
    old = [
        str(path.with_suffix(""))
        for folder, formats in {results / "tables": tuple(FORMATS), results / "figures": ("png", "svg")}.items()
        if any(path.parent == folder for path in written)
        for path in sorted(folder.glob(f"*.{formats[0]}"))
        if path.with_suffix("") not in now and all(path.with_suffix(f".{other}").is_file() for other in formats)
    ]
    if old:
        say(f"from an earlier command and not written again, so delete what you do not need: {', '.join(old)}")


def runs(arguments: list[str]) -> None:
    """``dkl runs``: list the runs under ``results``; ``dkl runs compare A B …`` compares some of them."""
    from dkl.reporting.formats import to_plain
    from dkl.reporting.runs import comparison, draw_curves, find_run, listing, read_runs

    words = [text for text in arguments if "=" not in text]
    options = parse_options("runs", [text for text in arguments if "=" in text])
    results = Path(options["results"])
    if words and (words[0] != "compare" or len(words) < 3):
        raise UserError(
            f"dkl runs {' '.join(words)} is not complete: dkl runs lists all, dkl runs compare A B … compares"
        )
    every, problems = read_runs(results)
    if words:
        chosen = [find_run(every, name) for name in words[1:]]
        if len({run.folder for run in chosen}) < len(chosen):
            raise UserError("dkl runs compare has one run twice: name different ones")
        for compared in chosen:
            print(f"{compared.hash}  {compared.folder}")
        print(f"\n{to_plain(comparison(chosen))}", end="")
        with needs_extra("figures"):
            for path in draw_curves(chosen, results / "figures"):
                say(f"drawn: {path}")
    else:
        print(to_plain(listing(every, options["filter"], options["sort"], options["limit"])), end="")
    for problem in problems:
        say(f"left out: {problem}")


def verify(arguments: list[str]) -> None:
    """``dkl verify``: evaluate a random part of a record's images again, and compare the flags.

    Exits with 1 if the record is not verified.
    """
    from dkl.evaluation.verification import verify as verify_record

    words, rest = [text for text in arguments if "=" not in text], list[str]()
    if len(words) != 1 or words[0].startswith("-"):
        raise UserError("name one record: dkl verify results/records/NAME.json checkpoint=FILE")
    path = Path(words[0])
    if not path.is_file():
        raise UserError(f"there is no record {path}: give the file that dkl evaluate printed")
    options = parse_options("verify", [text for text in arguments if text not in words], rest)
    if path.suffix != ".json":
        raise UserError(f"{path} is no record: give the file that ends with .json")
    result = verify_record(path, rest, checked=options["n"], seed=options["seed"])
    say(result.verdict)
    if not result.agrees:
        raise SystemExit(1)
    say(f"Next: {tables_next([path], rest)}")


def export(arguments: list[str]) -> None:
    """``dkl export``: write a run's network to a folder for others, and push it to a hub if asked."""
    from dkl import sharing
    from dkl.sharing.export import check_push, push

    options = parse_options("export", arguments)
    for key in ("run", "to"):
        if not options[key]:
            raise UserError(f"{key}= is missing: dkl export run=FOLDER to=FOLDER")
    if options["push"]:
        check_push(options["push"])
    if any(text.startswith("results=") for text in arguments) and not Path(options["results"]).is_dir():
        raise UserError(
            f"results={options['results']} is not a folder: give the folder of the run's records, or leave out results="
        )
    folder = Path(options["to"])
    files = sharing.export(
        options["run"], folder, format=options["format"], weights=options["weights"], results=options["results"]
    )
    for path in files:
        say(f"written: {path}")
    if options["push"]:
        say(f"pushed: {push(folder, files, options['push'])}")


def evaluate_next(paths: Sequence[Path], overrides: Sequence[str]) -> str:
    """Return the command that evaluates the runs in the folders ``paths``, trained with ``overrides``."""
    chosen = paths[: 1 if len(paths) > MANY else None]
    runs = ",".join(quoted(str(relative(path))) for path in chosen)
    folders = [text for text in overrides if text.startswith(("paths.results=", "paths.data="))]
    return shlex.join(["dkl", "evaluate", *(["-m"] if len(chosen) > 1 else []), f"run={runs}", *folders])


def tables_next(paths: Sequence[Path], overrides: Sequence[str]) -> str:
    """Return the command that makes the tables of the records ``paths``, evaluated with ``overrides``."""
    from dkl.records import load

    given = any(text.startswith("paths.results=") for text in overrides)
    results = [f"results={results_folder(overrides)}"] if given else []
    smoke = ["smoke=true"] if any(load(path).budget == "smoke" for path in paths) else []
    return shlex.join(["dkl", "tables", *results, *smoke])


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "tables": tables,
    "runs": runs,
    "verify": verify,
    "export": export,
}


COMPLETED: dict[str, Callable[[], Iterable[object]]] = {
    "run": lambda: sorted(Path(default_results(), "runs").glob("*-s*-*")),
    "attacks": lambda: [*SUITES, *(name.replace("-K", "-20") for name in LISTED)],
    "experiment": lambda: choices("experiments"),
    "budget": lambda: choices("budget"),
}
"""The values that a shell completes, by key; Hydra completes the other groups."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``dkl`` with ``arguments``, by default the process's. Exits with 2 after a mistake of the user.

    SIGINT (Ctrl-C) and SIGTERM save the state if that is quick, print one line and exit with 130 or 143.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        usages = "".join(f"  {usage}\n" for usage in USAGE.values())
        print(f"Decoupled KL losses: adversarial training, distillation, evaluation, tables.\n\n{usages}")
        print("Each has --help. Values are Hydra overrides; docs/configuration.md explains them.")
    elif command == "--version":
        print(f"dkl {__version__}")
    elif command not in (*COMMANDS, *COMPLETION):
        print(f"error: there is no command {command!r}: {choose_from(command, COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    elif command in COMMANDS and {"-h", "--help"} & set(rest):
        print(page(command), end="")
    else:
        try:
            with interruptible():
                if command in COMPLETION:
                    _complete(arguments)
                else:
                    COMMANDS[command](_expand_config_dir(rest) if command in (*GROUPS, "reproduce") else rest)
        except Interrupted as stop:
            stop.report()
            raise
        except BrokenPipeError:  # the reader of the output, such as head, has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except ImportError as error:
            if Path(error.path or "").suffix in ("", ".py"):  # not of a library in machine code
                raise
            print(
                f"error: {first_line(error)}: a library cannot be loaded, mostly for lack of memory: free some, or "
                "raise the limit that `ulimit -v` shows",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        except (UserError, OSError) as error:
            print(for_the_terminal(error), file=sys.stderr)
            raise SystemExit(2) from None


def _expand_config_dir(arguments: Sequence[str]) -> list[str]:
    """Replace Hydra's ``--config-dir FOLDER`` by ``hydra.searchpath=[file://FOLDER]``, which every command knows."""
    place = next((at for at, text in enumerate(arguments) if re.fullmatch(r"(--config-dir|-cd)(=.*)?", text)), None)
    if place is None:
        return list(arguments)
    flag, equals, folder = arguments[place].partition("=")
    rest = [*arguments[:place], *arguments[place + (1 if equals else 2) :]]
    folder = folder if equals else next(iter(arguments[place + 1 :]), "")
    if not folder or not Path(folder).is_dir():
        raise UserError(f"{flag} {folder}: there is no such folder; give one with folders of choices, such as loss/")
    if any(text.startswith("hydra.searchpath=") for text in rest):
        raise UserError(f"{flag} {folder} and hydra.searchpath= are the same: give one of them")
    return [*rest, f"hydra.searchpath=[{quoted(f'file://{Path(folder).resolve()}')}]"]


def _complete(arguments: list[str]) -> None:
    """Print the words that may follow the line so far in ``COMP_LINE``; ``arguments`` are such as ``-sc query=bash``.

    ``eval "$(dkl train -sc install=bash)"`` lets the shell call this.
    """
    program, _, rest = os.environ.get("COMP_LINE", "").partition(" ")
    command, space, words = rest.lstrip().partition(" ")
    word = words.rpartition(" ")[2]
    key, equals, _ = word.partition("=")
    if command in COMMANDS and equals and key in COMPLETED:
        print(" ".join(text for value in COMPLETED[key]() if (text := f"{key}={value}").startswith(word)))
    elif not program or (space and command in GROUPS):
        os.environ["COMP_LINE"] = f"{program} {words}"  # to Hydra all words after the first are overrides
        hydra_app.complete(command or "train", arguments)
    elif space:
        print(" ".join(f"{option.key}=" for option in OPTIONS.get(command, ()) if option.key))
    else:
        print(" ".join(USAGE))
