"""Hydra overrides: read one by one, composed, and Hydra's errors as one line that says how to fix them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, errors
from omegaconf.errors import OmegaConfBaseException

from dkl.config.compose import choices, compose_config, is_group
from dkl.errors import UserError, choose_from, first_line, similar
from dkl.validation import hints, number_type, problem

HYDRA_OWN = re.compile(r"[+~]*hydra(?!\.searchpath)\b")
"""Matches overrides of Hydra itself. ``hydra.searchpath`` is not among them: composing needs it."""


def read_overrides(texts: Sequence[str]) -> list[Override]:
    """Parse overrides. Raises UserError, which shows how to quote the value, on the first that Hydra cannot read."""
    parsed = []
    for text in texts:
        override = _parsed(text)
        if override is None:
            key, equals, value = text.partition("=")
            readable = f"{key}=" + quoted(value.strip("'\""))
            if not equals or _parsed(readable) is None:
                raise UserError(f"{text!r} is not KEY=VALUE, such as seed=1")
            raise UserError(f'{text} has characters that Hydra takes only in quotes: write "{readable}"')
        if not override.key_or_group:
            raise UserError(f"{text!r} has no key: write KEY=VALUE, such as seed=1")
        parsed.append(override)
    return parsed


def expand_network(texts: Sequence[str]) -> list[str]:
    """Replace ``model=KIND:NAME`` by ``network='KIND:NAME'``, because ``model`` alone takes names of configurations."""
    named = re.compile("model=([^:]+:.*)")
    return ["network=" + quoted(match[1].strip("'\"")) if (match := named.fullmatch(text)) else text for text in texts]


def quoted(text: str) -> str:
    """Return ``text`` as the value of an override: in quotes, unless Hydra reads it as the same text without them."""
    plain = _parsed(f"key={text}") if re.fullmatch(r"[\w./-]+", text, re.ASCII) else None
    return text if plain and plain.value() == text else QuotedString(text, Quote.single).with_quotes()


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def compose_explained(root: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration ``root``. Raises UserError in one line if an override does not fit it."""
    for override in read_overrides([text for text in overrides if text.startswith("hydra.searchpath=")]):
        value = override.value()
        for place in map(str, value if isinstance(value, list) else [value]):
            scheme, _, path = place.rpartition("://")
            if scheme in ("", "file") and not Path(path).is_dir():  # Hydra would only ignore it
                raise UserError(f"hydra.searchpath={place}: there is no folder {path}; write [file:///PATH/OF/FOLDER]")
    _check_choices(overrides)
    try:
        return compose_config(root, list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        read_overrides(overrides)  # Hydra does not say which override it cannot read
        raise explain(root, error, overrides) from None


def check_hydras_own(root: str, overrides: Sequence[str]) -> None:
    """Raise UserError if an override of Hydra itself, such as ``hydra/launcher``, does not fit."""
    own = [text for text in overrides if HYDRA_OWN.match(text)]
    if not own:
        return
    if dotted := next((text for text in own if re.match(r"hydra\.(sweeper|launcher)=\w", text)), None):
        raise UserError(f"{dotted}: write {dotted.replace('.', '/', 1)}, with a slash, to choose one")
    try:
        trials = OmegaConf.select(compose_config(root, own, with_hydra=True), "hydra.sweeper.n_trials")
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(root, error, own) from None
    except ValueError:  # a value for the whole of Hydra's configuration
        raise UserError(f"{own[0]}: set single keys, such as hydra/launcher=joblib") from None
    if isinstance(trials, int) and trials < 1:
        raise UserError(f"hydra.sweeper.n_trials={trials} must be at least 1")


def _check_choices(overrides: Sequence[str]) -> None:
    """Raise UserError if a group is given anything but a name; Hydra would merge a list into one choice."""
    for override in read_overrides([text for text in overrides if is_group(text.partition("=")[0])]):
        text, group, value = override.input_line or "", override.key_or_group, override.value()
        if isinstance(value, list):
            names = text.partition("=")[2].strip("[]")
            raise UserError(f"{text}: {group} takes one name; for one run per name write -m {group}={names}")
        if not isinstance(value, str) and not override.is_sweep_override():
            raise UserError(f"{text}: {group} takes a name: {choose_from('', choices(group))}")


def explain(root: str, error: Exception, overrides: Sequence[str] = ()) -> UserError:
    """An error of Hydra or OmegaConf, raised on ``overrides``, as one line for the user."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:  # Hydra raises a general error from the one that names the mistake
        chain.append(chain[-1].__cause__)
    cause, line = chain[-1], first_line(error)
    if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and cause.options:
        group, _, name = cause.missing_cfg_file.rpartition("/")
        return UserError(f"there is no choice {group}={name}: {choose_from(name, cause.options)}")
    if unknown := re.match(r"Could not (?:override|delete from config\.) '([^'@]+)'", line):
        key = unknown[1]
        if f"~{key}" in overrides and key in _keys(compose_config(root, [])):
            return UserError(f"~{key}: {key} is null, so there is nothing to remove: leave it out")
        return UserError(f"there is no key {key!r}: {_suggest(root, key, overrides)}")
    if existing := re.match(r"Could not append to config\. An item is already at '([^']+)'", line):
        given = next((text for text in overrides if text.startswith(f"+{existing[1]}=")), f"+{existing[1]}")
        return UserError(f"{given}: {existing[1]} exists, and + adds a new key: write {given.removeprefix('+')}")
    if twice := re.match(r"(\S+) appears more than once in the final defaults list", line):
        given = next((text for text in overrides if text.lstrip("+").startswith(f"{twice[1]}=")), twice[1])
        return UserError(f"{given}: write {twice[1]}=NAME without +, once")
    about_value = _of_a_value(cause, line) if isinstance(cause, OmegaConfBaseException) else None
    if about_value:
        return UserError(about_value)
    # The lines of all errors as one, without the names of Hydra's classes and files.
    texts = dict.fromkeys(str(item).partition("Config search path")[0] for item in chain)
    lines = [line.strip().rstrip(".;") for text in texts for line in text.splitlines()]
    noise = ("See https", "full_key:", "reference_type=", "object_type=", "To append to your", "Set the environment")
    return UserError("; ".join(line for line in lines if line and not line.startswith(noise)))


def _of_a_value(error: OmegaConfBaseException, line: str) -> str | None:
    """Describe what the key in ``error`` takes; None if it is about something else. ``line`` may name the override."""
    name, value = str(error.full_key), error.value
    place = line.removeprefix("Error merging override ") if line.startswith("Error merging") else name
    if isinstance(error, errors.InterpolationKeyError):
        key = first_line(error).partition("'")[2].partition("'")[0]
        return f"{name} is ${{{key}}}, but there is no key {key!r}: give a value, or the name of another key"
    if isinstance(error, errors.InterpolationResolutionError):
        reason = first_line(error).rpartition("resolving interpolation: ")[2].strip("\"'")
        return f"{name}: {reason}: set it, or give a value"
    if isinstance(error, errors.ConfigTypeError) and place.startswith("~"):
        return f"{place}: {name} cannot be removed; give it a value"
    if not isinstance(error, errors.ValidationError):
        return None
    if value is None:
        return f"{place}: {name} needs a value; leave it out for its default"
    annotation = hints(error.object_type).get(str(error.key), error.ref_type)
    if error.object_type is list:  # the mistake is an entry, and the type that of the list
        annotation = number_type(annotation).kind
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"{place}: {choose_from(str(value), [item.name for item in annotation])}"
    if is_dataclass(annotation):
        return f"{place}: {name} is a group of values: set one of them, such as {name}.KEY=VALUE"
    wanted = problem(annotation, value)
    if wanted is None and number_type(annotation).sequence:
        wanted = f"a list, such as {name}=[a,b]"
    if wanted is None and annotation in (str, str | None):
        wanted = "text"
    return f"{place}: {name} must be {wanted}" if wanted else None


def last_value(overrides: Sequence[str], key: str, default: str) -> str:
    """Return the last value that ``overrides`` give ``key``, without quotes, or ``default``."""
    given = next((text for text in reversed(overrides) if text.startswith(f"{key}=")), f"{key}={quoted(default)}")
    value = read_overrides([given])[0].value()
    return value if isinstance(value, str) else given.partition("=")[2]  # of a sweep, all values


def submitit_logs(overrides: Sequence[str], sweep_folder: str) -> str | None:
    """Return where submitit writes the logs of its jobs; None with another launcher."""
    if not last_value(overrides, "hydra/launcher", "basic").startswith("submitit"):
        return None
    folder = last_value(overrides, "hydra.sweep.dir", sweep_folder)
    place = last_value(overrides, "hydra.launcher.submitit_folder", f"{folder}/.submitit/%j")
    return f"{place.replace('%j', 'JOB')}/JOB_*_log.out and .err"


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        yield f"{prefix}{key}"
        child = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{prefix}{key}.")


def _suggest(root: str, override: str, overrides: Sequence[str]) -> str:
    """What to write instead of the unknown key in ``override``, among the keys of the choices in ``overrides``."""
    name = override.lstrip("+~").partition("=")[0].partition("@")[0]
    if name.startswith("hydra"):
        return f"dkl {root} --hydra-help explains Hydra's own keys"
    given = [(text.lstrip("+~").partition("=")[0], text) for text in overrides]
    groups = [text for key, text in given if key == "hydra.searchpath" or is_group(key)]
    try:
        cfg = compose_config(root, groups)
    except HydraException:  # the unknown key is one of the groups
        cfg = compose_config(root, [])
    keys = list(_keys(cfg))
    parent, dot, last = name.rpartition(".")
    with suppress(Exception):  # it cannot be imported
        target = OmegaConf.select(cfg, f"{parent}._target_")
        if target and last in hints(get_object(target)):
            return f"the file of this choice leaves it at its default; write +{name}=VALUE"
    siblings = [key for key in keys if key.rpartition(".")[0] == parent]
    if dot and parent in keys and not siblings and is_group(parent):
        names = [choice for choice in choices(parent) if choice != "none"]
        return f"{parent} is none here and has no values; choose one of {', '.join(f'{parent}={n}' for n in names)}"
    close = [f"{parent}{dot}{key}" for key in similar(last, [key.rpartition(".")[2] for key in siblings])]
    if f"{parent}.arguments" in siblings and not close:
        return f"write {parent}.arguments.{last}=… for an argument that has no key"
    close = close or [key for key in keys if key.rpartition(".")[2] == last] or similar(name, keys)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if dot and siblings:
        return f"{parent} has {', '.join(key.rpartition('.')[2] for key in siblings)}"
    return f"dkl {root} --help lists the keys"
