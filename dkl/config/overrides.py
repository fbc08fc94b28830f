"""Hydra overrides: read one by one, composed, and Hydra's errors as one line that says how to fix them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dkl.config.choices import choices
from dkl.config.compose import compose_config, is_group
from dkl.errors import UserError, choose_from, similar

HYDRA_OWN = re.compile(r"[+~]*hydra(?!\.searchpath)\b")
"""Matches overrides of Hydra itself. ``hydra.searchpath`` is not among them: composing needs it."""

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
"""OmegaConf's names of types, as a user would say them."""


def read_overrides(texts: Sequence[str]) -> list[Override]:
    """Parse overrides. Raises UserError, which shows how to quote the value, on the first that Hydra cannot read."""
    parsed = []
    for text in texts:
        override = _parsed(text)
        if override is None:
            raise UserError(_unreadable(text))
        if not override.key_or_group:
            raise UserError(f"{text!r} has no key: write KEY=VALUE, such as seed=1")
        parsed.append(override)
    return parsed


def expand_network(texts: Sequence[str]) -> list[str]:
    """Replace ``model=KIND:NAME`` by ``network='KIND:NAME'``, because ``model`` alone takes names of configurations.

    ``arguments.KEY=VALUE`` becomes ``+arguments.KEY=VALUE``: which arguments there are, only the network knows.
    """
    return [_expanded(text) for text in texts]


def quoted(text: str) -> str:
    """Return ``text`` as the value of an override: in quotes, unless Hydra reads it as the same text without them."""
    plain = _parsed(f"key={text}") if re.fullmatch(r"[\w./-]+", text, re.ASCII) else None
    return text if plain and plain.value() == text else QuotedString(text, Quote.single).with_quotes()


def _expanded(text: str) -> str:
    key, _, value = text.partition("=")
    if key == "model" and ":" in value:
        return "network=" + quoted(value.strip("'\""))
    return f"+{text}" if key.startswith("arguments.") else text


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def _unreadable(text: str) -> str:
    """What is wrong with an override that Hydra cannot read."""
    key, equals, value = text.partition("=")
    readable = f"{key}=" + quoted(value.strip("'\""))
    if not equals or _parsed(readable) is None:
        return f"{text!r} is not KEY=VALUE, such as seed=1"
    return f'{text} has characters that Hydra takes only in quotes: write "{readable}"'


def compose_explained(root: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration ``root``. Raises UserError in one line if an override does not fit it."""
    _check_searchpath(overrides)
    _check_lists(overrides)
    try:
        return compose_config(root, list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        for override in read_overrides(overrides):  # one by one: Hydra's errors do not always say which is wrong
            _check_choice(override)
        raise explain(root, error, overrides) from None


def check_hydras_own(root: str, overrides: Sequence[str]) -> None:
    """Raise UserError if an override of Hydra itself, such as ``hydra/launcher``, does not fit."""
    own = [text for text in overrides if HYDRA_OWN.match(text)]
    if not own:
        return
    try:
        trials = OmegaConf.select(compose_config(root, own, with_hydra=True), "hydra.sweeper.n_trials")
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(root, error, own) from None
    except ValueError:  # a value for the whole of Hydra's configuration
        raise UserError(f"{own[0]}: set single keys, such as hydra/launcher=joblib") from None
    if isinstance(trials, int) and trials < 1:
        raise UserError(f"hydra.sweeper.n_trials={trials} must be at least 1")


def _check_choice(override: Override) -> None:
    """Raise UserError if the value of a group is not a name; Hydra's own message does not say which group."""
    group, value = override.key_or_group, override.value()
    if not is_group(group) or override.is_delete() or override.is_sweep_override():
        return
    if override.is_add() or override.is_force_add():
        raise UserError(f"{override.input_line}: write {group}=NAME without +, once")
    if not isinstance(value, str):
        raise UserError(f"{override.input_line}: {group} takes a name: {choose_from('', choices(group))}")


def _check_lists(overrides: Sequence[str]) -> None:
    """Raise UserError if a group is given a list, which Hydra would merge into one choice."""
    for text in overrides:
        group, _, value = text.partition("=")
        if value.startswith("[") and value.endswith("]") and is_group(group):
            raise UserError(f"{text}: {group} takes one name; for one run per name write -m {group}={value[1:-1]}")


def _check_searchpath(overrides: Sequence[str]) -> None:
    """Raise UserError if a folder of ``hydra.searchpath`` does not exist; Hydra would only ignore it."""
    for override in read_overrides([text for text in overrides if text.startswith("hydra.searchpath=")]):
        value = override.value()
        for place in map(str, value if isinstance(value, list) else [value]):
            scheme, _, path = place.rpartition("://")
            if scheme in ("", "file") and not Path(path).is_dir():
                raise UserError(f"hydra.searchpath={place}: there is no folder {path}; write [file:///PATH/OF/FOLDER]")


def explain(root: str, error: Exception, overrides: Sequence[str] = ()) -> UserError:
    """An error of Hydra or OmegaConf, raised on ``overrides``, as one line for the user."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:  # Hydra raises a general error from the one that names the mistake
        chain.append(chain[-1].__cause__)
    text = "\n".join(dict.fromkeys(str(item).partition("Config search path")[0].strip() for item in chain))
    unknown = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text)
    if unknown and f"~{unknown[1]}" in overrides and unknown[1] in _keys(compose_config(root, [])):
        return UserError(f"~{unknown[1]}: {unknown[1]} is null, so there is nothing to remove: leave it out")
    if unknown and ("not in" in text or "does not exist" in text or "No match" in text):
        return UserError(f"there is no key {unknown[1]!r}: {_suggest(root, unknown[1], overrides)}")
    if existing := re.search(r"Could not append to config. An item is already at '([^']+)'", text):
        given = next((item for item in overrides if re.match(rf"\+{re.escape(existing[1])}=", item)), f"+{existing[1]}")
        return UserError(f"{given}: {existing[1]} exists, and + adds a new key: write {given.removeprefix('+')}")
    if choice := re.search(r"Could not find '([^']+)/([^'/]*)'\s+Available options in '[^']+':\n((?:\t.*\n?)*)", text):
        group, name, available = choice.groups()
        return UserError(f"there is no choice {group}={name}: {choose_from(name, available.split())}")
    return UserError(_of_a_value(text) or _plain(text))


def _of_a_value(text: str) -> str | None:
    """The line about a value that its key cannot take; None if ``text`` is about something else."""
    given = re.search(r"Error merging override (.*)", text)
    key = re.search(r"full_key: (\S+)", text)
    place = given[1] if given else key[1] if key else ""
    name = key[1] if key else place.partition("=")[0]
    if found := re.search(r"could not be converted to (\w+)", text):
        return f"{place}: {name} must be {KINDS.get(found[1], found[1])}"
    if "is not a valid bool" in text:
        return f"{place}: {name} must be true or false"
    if found := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        return f"{place}: {choose_from(found[1], found[2].split(', '))}"
    if "is not Optional" in text:
        return f"{place}: {name} needs a value; leave it out for its default"
    if re.search(r"Invalid type assigned: \w+ is not a subclass of", text):
        return f"{place}: {name} is a group of values: set one of them, such as {name}.KEY=VALUE"
    if "is not a ListConfig, list or tuple" in text:
        return f"{place}: {name} must be a list, such as {name}=[1,2]"
    if found := re.search(r"Cannot convert '\w+' to string", text):
        return f"{place}: {name} must be text"
    if found := re.search(r"Interpolation key '(.*)' not found", text):
        return f"{name} is ${{{found[1]}}}, but there is no key {found[1]!r}: give a value, or the name of another key"
    if "does not support deletion" in text:
        return f"{place}: {name} cannot be removed; give it a value"
    if found := re.search(r"raised while resolving interpolation: \W*(.*?)\W*$", text, re.MULTILINE):
        return f"{name}: {found[1]}: set it, or give a value"
    return None


def _plain(text: str) -> str:
    """The lines of an error of Hydra as one, without the names of its classes and files."""
    lines = [line.strip().rstrip(".;") for line in text.splitlines()]
    noise = ("See https", "full_key:", "reference_type=", "object_type=", "To append to your", "Set the environment")
    return "; ".join(line for line in lines if line and not line.startswith(noise))


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
        keys = list(_keys(compose_config(root, groups)))
    except HydraException:  # the unknown key is one of the groups
        keys = list(_keys(compose_config(root, [])))
    parent, dot, last = name.rpartition(".")
    siblings = [key for key in keys if key.rpartition(".")[0] == parent]
    if dot and parent in keys and not siblings and is_group(parent):
        names = [choice for choice in choices(parent) if choice != "none"]
        return f"{parent} is none here and has no values; choose one of {', '.join(f'{parent}={n}' for n in names)}"
    close = [f"{parent}{dot}{key}" for key in similar(last, [key.rpartition(".")[2] for key in siblings])]
    close = close or [key for key in keys if key.rpartition(".")[2] == last] or similar(name, keys)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if dot and siblings:
        return f"{parent} has {', '.join(key.rpartition('.')[2] for key in siblings)}"
    return f"dkl {root} --help lists the keys"
