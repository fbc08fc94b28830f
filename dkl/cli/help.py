"""The pages of ``--help``: the choices of every configuration group, and every value with its default and its line."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from dkl.config import EvaluateConfig, TrainConfig, compose_config
from dkl.config.compose import choices, field_lines, plain
from dkl.options import OPTIONS

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

COLUMN = 40
"""Column in which the lines beside the values begin."""


def page(command: str) -> str:
    """Return the page of ``dkl <command> --help``."""
    text = f"{USAGE[command]}\n\n"
    if command in OPTIONS:
        lines: dict[str, str] = {}
        usages: list[str] = []
        for option in OPTIONS[command]:  # those that share a line are beside each other
            usages.append(option.usage)
            if option.line:
                lines[", ".join(usages)] = option.line
                usages.clear()
        text += _listing("options", lines)
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
    content = plain(compose_config(command, []), enum_to_str=True)
    lines = _documented(content, TrainConfig if command == "train" else EvaluateConfig)
    return "".join(f"{value:{COLUMN}}{'  # ' + line if line else ''}".rstrip() + "\n" for value, line in lines)


def _documented(content: Mapping[Any, Any], root: type, indent: str = "") -> Iterator[tuple[str, str]]:
    """Yield the lines of ``content`` as YAML, each with its line of ``root``; arguments of constructors have none."""
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
