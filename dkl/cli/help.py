"""The pages of ``--help``: the choices of every configuration group, and every value with its default and its line."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from dkl.config.choices import choices

USAGE = {
    "train": "dkl train [-m] [GROUP=CHOICE …] [KEY=VALUE …]   train one run, or a sweep with -m and comma lists",
    "evaluate": "dkl evaluate run=FOLDER | [checkpoint=FILE] model=… data=… [attacks=…] [KEY=VALUE …]",
    "reproduce": "dkl reproduce table=N|figure=N|experiment=NAME [row=NAME] [seed=0,1] [budget=…] [dry_run=true] …",
    "tables": "dkl tables [--html] [results=FOLDER] [records=[FOLDER,…]]   make tables; --html adds figures and a page",
    "runs": "dkl runs [results=FOLDER] | dkl runs compare RUN RUN … [results=FOLDER]   list or compare runs",
    "verify": "dkl verify RECORD checkpoint=FILE | run=FOLDER [n=750] [KEY=VALUE …]   evaluate part of a record again",
    "export": "dkl export run=FOLDER to=FOLDER [format=hf] [push=user/name]   write a network for others",
}

GROUPS = {
    "train": ("data", "model", "task", "loss", "attack", "averaging", "schedule", "recipe", "budget", "logger"),
    "evaluate": ("data", "model", "logger"),
}

OPTIONS = {
    "reproduce": {
        "table=N, figure=N": "a table or figure of the paper, by its number",
        "experiment=NAME": "one of the experiments below; quickstart by default",
        "row=NAME": "this row alone, with its teacher; all rows by default",
        "seed=0,1": "these seeds; by default those of the experiment",
        "budget=NAME": "size of the runs: paper, mini, smoke or own; by default that of the experiment",
        "dry_run=true": "print the plan and the commands of each job, and run nothing",
        "html=true": "also draw all figures and write index.html, one page with everything",
        "hydra/launcher=NAME": "run the jobs through a launcher of Hydra, such as joblib or submitit_slurm",
        "KEY=VALUE": "any option of dkl train that no row sets itself, such as trainer.device=cuda",
    },
    "tables": {
        "--html": "also draw the figures and write index.html, one page with everything",
        "results=FOLDER": "folder with the records; DKL_RESULTS_DIR sets the default, else results",
        "smoke=true": "include records of budget smoke, which are left out by default",
        "records=[FOLDER,…]": "other folders of records, whose entries are shown beside ours and RobustBench's",
        "dataset=NAME": "of the boards of entries, show this dataset only",
        "norm=NAME, eps=RADIUS": "of the boards of entries, show this threat model only, such as norm=linf eps=8/255",
        "architecture=TEXT": "show entries whose architecture contains the text",
        "extra=false": "show entries without additional training images, or with true those with them",
        "verified=true": "show entries that dkl verify has verified, or with false the others",
    },
    "runs": {
        "compare RUN RUN …": "print in what these runs differ, and draw their curves into FOLDER/figures; a RUN is a "
        "folder, or a part of its name",
        "results=FOLDER": "folder with the runs; DKL_RESULTS_DIR sets the default, else results",
    },
    "verify": {
        "RECORD": "the file of a record, results/records/NAME.json",
        "checkpoint=FILE, run=FOLDER": "the weights that were evaluated",
        "model=NAME": "their network, if the record names none of this project or timm, as for dkl evaluate",
        "data=NAME": "the dataset; by default that of the record",
        "n=750": "how many images are evaluated again",
        "seed=NUMBER": "the seed that draws them; by default one that nobody knows before",
        "attacks=[package.module:attack]": "those of the record's attacks that are code: it runs only if you name it",
        "KEY=VALUE": "trust, device, threads and paths of dkl evaluate",
    },
    "export": {
        "run=FOLDER": "a finished run of dkl train",
        "to=FOLDER": "where the files are written",
        "format=NAME": "hf (timm and the Hugging Face hub; the default), robustbench, torch or onnx",
        "weights=NAME": "last, average or best; by default evaluation.weights of the run, else its average",
        "push=USER/NAME": "also upload the written files to the Hugging Face hub",
        "results=FOLDER": "folder with the records of the card; DKL_RESULTS_DIR sets the default, else results",
    },
}
"""Options of the commands that have no configuration, each with its line."""

COLUMN = 40
"""Column in which the lines beside the values begin."""


def overview() -> str:
    """Return the page of ``dkl --help``."""
    page = "Decoupled KL losses: adversarial training, distillation, evaluation, tables.\n\n"
    page += "".join(f"  {usage}\n" for usage in USAGE.values())
    return page + "\nEach has --help. Values are Hydra overrides; docs/configuration.md explains them.\n"


def page(command: str) -> str:
    """Return the page of ``dkl <command> --help``."""
    text = f"{USAGE[command]}\n\n"
    if command in OPTIONS:
        text += _listing("options", OPTIONS[command])
    if command == "reproduce":
        text += "\n" + _listing("experiments", choices("experiments"))
    for group in GROUPS.get(command, ()):
        text += _listing(group, choices(group)) + "\n"
    if command in GROUPS:
        text += f"values, with their defaults\n{_values(command)}"
        text += f"\nHydra's own options: dkl {command} --hydra-help\n"
    return text


def _listing(title: str, lines: dict[str, str]) -> str:
    width = max(len(name) for name in lines)
    return f"{title}\n" + "".join(f"  {name:{width}}  {line}\n" for name, line in lines.items())


def _values(command: str) -> str:
    """Return the default configuration as YAML, with each field's line beside it."""
    from omegaconf import OmegaConf  # slow to import, and only this page needs it

    from dkl.config import EvaluateConfig, TrainConfig, compose_config

    content = OmegaConf.to_container(compose_config(command, []), enum_to_str=True)
    assert isinstance(content, dict)
    lines = _documented(content, TrainConfig if command == "train" else EvaluateConfig)
    return "".join(f"{value:{COLUMN}}{'  # ' + line if line else ''}".rstrip() + "\n" for value, line in lines)


def _documented(content: Mapping[Any, Any], root: type, indent: str = "") -> Iterator[tuple[str, str]]:
    """Yield the lines of ``content`` as YAML, each with its line of ``root``; arguments of constructors have none."""
    from dkl.config.docs import field_lines

    about, kinds = field_lines(root), {field.name: field.type for field in fields(root)}
    for name, line in about.items():
        value, kind = content[name], kinds[name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield f"{indent}{name}:", line
            yield from _documented(value, kind, indent + "  ")
        else:
            first, *rest = _yaml(name, value, indent)
            yield first, line
            yield from ((text, "") for text in rest)


def _yaml(name: str, value: object, indent: str) -> Iterator[str]:
    """Yield the lines of ``name: value``; interpolations and strings are as in an override."""
    if isinstance(value, Mapping) and value:
        yield f"{indent}{name}:"
        for key, item in value.items():
            yield from _yaml(key, item, indent + "  ")
    elif isinstance(value, list):
        yield f"{indent}{name}: [{', '.join(map(str, value))}]"
    elif value is None or isinstance(value, bool):
        yield f"{indent}{name}: {'null' if value is None else str(value).lower()}"
    else:
        yield f"{indent}{name}: {value}"
