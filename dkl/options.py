"""The options of the commands that have no configuration; parsing, help pages, completion and checks read one table."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dkl.errors import UserError, choose_from, similar
from dkl.threat import EVALUATED_NORMS, parse_eps
from dkl.validation import OneOf


def default_results() -> str:
    """Return the results folder of a command that names none, as in configs/train.yaml."""
    return os.environ.get("DKL_RESULTS_DIR", "results")


def parse_bool(key: str, text: str) -> bool:
    """Parse the value of ``key``. Raises UserError if it is neither true nor false."""
    if text.lower() not in ("true", "false"):
        raise UserError(f"{key}={text} must be true or false")
    return text.lower() == "true"


def parse_seeds(key: str, text: str) -> tuple[int, ...]:
    """Parse seeds such as ``0,1,2``. Raises UserError if one is no whole number, or is given twice."""
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise UserError(f"{key}={text} must be whole numbers, such as 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{key}={text} has a seed twice: give each once")
    return seeds


def parse_number_in_paper(key: str, text: str) -> str:
    """Return the manifest of a table or figure of the paper: ``table=2`` is table-02."""
    if not text.isdecimal():
        raise UserError(f"{key}={text} must be the number of a {key} in the paper, such as {key}=2")
    return f"{key}-{int(text):02d}"


def parse_whole(key: str, text: str) -> int:
    """Parse a whole number that torch can hold; only a seed may be 0."""
    if not text.isdecimal() or not (key != "seed") <= int(text) < 2**63:
        raise UserError(f"{key}={text} must be a whole number, such as {key}=1000")
    return int(text)


@dataclass(frozen=True)
class Option:
    """An option: its ``usage`` on the help page, such as ``n=750``, the ``line`` beside it, and how its value is read.

    ``parse`` takes the key and the text; it is None if the command passes the option on. An option without a ``line``
    shares that of the next one.
    """

    usage: str
    line: str = ""
    parse: Callable[[str, str], Any] | None = lambda key, text: text
    default: Any = None

    @property
    def key(self) -> str:
        """What stands before the equals sign; empty if the option has no key of its own."""
        key, equals, _ = self.usage.partition("=")
        return key if equals and key != "KEY" else ""


OPTIONS: dict[str, tuple[Option, ...]] = {
    "reproduce": (
        Option("table=N", parse=parse_number_in_paper),
        Option("figure=N", "a table or figure of the paper, by its number", parse_number_in_paper),
        Option("experiment=NAME", "one of the experiments below, or FILE.yaml of your own; quickstart by default"),
        Option("row=NAME", "this row alone, with its teacher; all rows by default"),
        Option("seed=0,1", "these seeds; by default those of the experiment", parse_seeds),
        Option("budget=NAME", "size of the runs: paper, mini, smoke or own; by default that of the experiment"),
        Option(
            "weights=published",
            "train nothing: download the published networks of the rows and evaluate them (options of dkl evaluate)",
            OneOf("published").parse,
        ),
        Option("dry_run=true", "print the plan and the commands of each job, and run nothing", parse_bool, False),
        Option("html=true", "also draw all figures and write index.html, one page with everything", parse_bool, False),
        Option(
            "hydra/launcher=NAME",
            "run the jobs through a launcher of Hydra, such as joblib or submitit_slurm",
            parse=None,
        ),
        Option("KEY=VALUE", "any option of dkl train that no row sets itself, such as trainer.device=cuda"),
    ),
    "tables": (
        Option("--html", "also draw the figures and write index.html, one page with everything"),
        Option("results=FOLDER", "folder with the records; DKL_RESULTS_DIR sets the default, else results"),
        Option("smoke=true", "include records of budget smoke, which are left out by default", parse_bool, False),
        Option(
            "records=[FOLDER,…]",
            "other folders of records, whose entries are shown beside ours and RobustBench's",
            lambda key, text: [Path(folder) for folder in text.strip("[]").split(",") if folder],
            (),
        ),
        Option("dataset=NAME", "of the boards of entries, show this dataset only"),
        Option("norm=NAME", parse=OneOf(*EVALUATED_NORMS).parse),
        Option(
            "eps=RADIUS",
            "of the boards of entries, show this threat model only, such as norm=linf eps=8/255",
            lambda key, text: parse_eps(text),
        ),
        Option("architecture=TEXT", "show entries whose architecture contains the text"),
        Option(
            "extra=false", "show entries without additional training images, or with true those with them", parse_bool
        ),
        Option("verified=true", "show entries that dkl verify has verified, or with false the others", parse_bool),
    ),
    "runs": (
        Option(
            "compare RUN RUN …",
            "print in what these runs differ, and draw their curves into FOLDER/figures; a RUN is a folder, or a part "
            "of its name",
        ),
        Option("results=FOLDER", "folder with the runs; DKL_RESULTS_DIR sets the default, else results"),
        Option(
            "filter=TEXT,KEY=VALUE",
            "list the runs whose names contain the texts and whose settings have the values",
            lambda key, text: text.split(","),
            (),
        ),
        Option(
            "sort=NAME",
            "list by name (the default), new (newest first), test or robust (best first)",
            OneOf("name", "new", "test", "robust").parse,
        ),
        Option("limit=N", "list at most so many runs", parse_whole),
    ),
    "verify": (
        Option("RECORD", "the file of a record, results/records/NAME.json"),
        Option("checkpoint=FILE", parse=None),
        Option("run=FOLDER", "the weights that were evaluated", parse=None),
        Option(
            "model=NAME",
            "their network, if the record names none of this project or timm, as for dkl evaluate",
            parse=None,
        ),
        Option("data=NAME", "the dataset; by default that of the record", parse=None),
        Option("n=750", "how many images are evaluated again", parse_whole, 750),
        Option("seed=NUMBER", "the seed that draws them; by default one that nobody knows before", parse_whole),
        Option(
            "attacks=[package.module:attack]",
            "those of the record's attacks that are code: it runs only if you name it",
            parse=None,
        ),
        Option("KEY=VALUE", "trust, device, threads and paths of dkl evaluate"),
    ),
    "export": (
        Option("run=FOLDER", "a finished run of dkl train"),
        Option("to=FOLDER", "where the files are written"),
        Option(
            "format=NAME", "hf (timm and the Hugging Face hub; the default), robustbench, torch or onnx", default="hf"
        ),
        Option("weights=NAME", "last, average or best; by default evaluation.weights of the run, else its average"),
        Option("push=USER/NAME", "also upload the written files to the Hugging Face hub"),
        Option("results=FOLDER", "folder with the records of the card; DKL_RESULTS_DIR sets the default, else results"),
    ),
}
"""Every option of these commands, in the order of the help page."""


def keys(command: str) -> list[str]:
    """List the keys that ``command`` reads itself."""
    return [option.key for option in OPTIONS[command] if option.key and option.parse]


def parse_options(command: str, arguments: Sequence[str], others: list[str] | None = None) -> dict[str, Any]:
    """Return the value of every option that ``command`` reads itself, by key, from ``KEY=VALUE`` arguments.

    Arguments with other keys are added to ``others`` if the command passes them on. Raises UserError on another form or
    key, or a wrong value.
    """
    own, given = keys(command), {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if text.startswith("-"):
            hint = "".join(f", did you mean {flag}?" for flag in similar(text, ("--html", "--help")))
            raise UserError(f"there is no flag {text!r}{hint}; dkl {command} --help lists the options")
        if key not in own and others is None:
            raise UserError(f"there is no option {key!r}: {choose_from(key, own)}")
        if not key or not (value if key in own else equals):
            raise UserError(f"{text!r} is not KEY=VALUE; dkl {command} --help lists the options")
        if key in own:
            given[key] = value
        elif others is not None:
            others.append(text)
    values: dict[str, Any] = {"results": default_results()}
    for option in OPTIONS[command]:
        if option.key in given and option.parse:
            values[option.key] = option.parse(option.key, given[option.key])
        else:
            values.setdefault(option.key, option.default)
    return values
