"""Composition: from the YAML files in ``configs`` to one configuration, and what both may hold."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl  # applies single values; Hydra has no public function
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's, which has no types

from dkl.config.schema import DataConfig, EvaluateConfig, TrainConfig
from dkl.errors import UserError, choose_from, first_line

T = TypeVar("T")
PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """Return the path of ``configs`` or ``experiments``: beside the package in a checkout, inside it in a wheel."""
    for base in (PACKAGE.parent, PACKAGE):
        if (base / folder / ("train.yaml" if folder == "configs" else "quickstart.yaml")).is_file():
            return base / folder
    raise UserError(f"the {folder} folder is missing from this installation of dkl: install it again")


def choices(group: str) -> dict[str, str]:
    """Map each choice of a group of ``configs``, or of ``experiments``, to the first comment line of its YAML file."""
    folder = shipped("experiments") if group == "experiments" else shipped("configs") / group
    lines = {}
    for path in sorted(folder.glob("*.yaml")):
        comments = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
        lines[path.stem] = next((line.lstrip("# ") for line in comments if not line.startswith("# @")), "")
    return lines


def register() -> None:
    """Register the typed roots, so that the defaults lists of ``configs`` can name them."""
    store = ConfigStore.instance()
    if "train_schema.yaml" not in store.repo:
        store.store(name="train_schema", node=TrainConfig)
        store.store(name="evaluate_schema", node=EvaluateConfig)


def scaled_epochs(epochs: int, whole: int, trained: int) -> int:
    """Return the same share of ``trained`` epochs as ``epochs`` is of ``whole``, at most ``epochs`` and at least 1."""
    return min(epochs, max(1, round(epochs * trained / whole)))


# On import, because the processes of a run resolve a configuration without composing one. The resolver keeps its name:
# the config.yaml of distillation runs contains it unresolved.
OmegaConf.register_new_resolver("share_of", scaled_epochs, replace=True)


def compose_config(root: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose the configuration ``root`` (train or evaluate) with Hydra overrides, without starting a Hydra job.

    With ``with_hydra`` it contains Hydra's own configuration too.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    # A choice of ``configs`` or a value for one key: no sweep, and not of Hydra itself.
    is_plain = all(
        override.package is None
        and not override.is_sweep_override()
        and not isinstance(override.value(), dict)
        and override.key_or_group
        and not override.key_or_group.startswith("hydra")
        for override in parsed
    )
    if with_hydra or not is_plain:
        return _compose(root, tuple(overrides), with_hydra=with_hydra)
    # Composing takes a tenth of a second. The rows of a table differ mostly in values, which take a few milliseconds.
    cfg = _composed(root, tuple(item.input_line or "" for item in parsed if is_group(item.key_or_group))).copy()
    ConfigLoaderImpl._apply_overrides_to_config([item for item in parsed if not is_group(item.key_or_group)], cfg)
    return cfg


def is_group(name: str) -> bool:
    """Whether ``name`` is a folder of choices in ``configs``, such as ``loss``."""
    return bool(name) and (shipped("configs") / name).is_dir()


def _compose(root: str, overrides: tuple[str, ...], *, with_hydra: bool = False) -> DictConfig:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("configs")), version_base="1.3"):
        return compose(root, list(overrides), return_hydra_config=with_hydra)


_composed = lru_cache(maxsize=256)(_compose)
"""The same, once per choices of groups; callers copy the result."""


def load_config(folder: Path) -> DictConfig:
    """Load the configuration of the run in ``folder``; keys added since it was trained get their defaults.

    Raises UserError if there is none, or if it has keys that no longer exist.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"run={folder} is not the folder of a run (it has no config.yaml); dkl train prints the folder's name"
        )
    try:
        content = OmegaConf.load(path)
        values = OmegaConf.to_container(content, resolve=False)
        if ignored := [key for key, _ in unknown_keys(values if isinstance(values, dict) else {}, TrainConfig)]:
            raise UserError(
                f"{path} has keys that do not exist, {', '.join(map(repr, ignored))}: if + has added them, training "
                "has ignored them, so remove their lines; otherwise use the version of dkl that trained the run"
            )
        cfg = OmegaConf.merge(OmegaConf.structured(TrainConfig(data=DataConfig())), content)
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{path} is not of this version of dkl: it has no {missing[0]}; train the run again")
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not text in UTF-8; train the run again") from None
    except (OmegaConfBaseException, YAMLError) as error:
        reason = first_line(error)
        raise UserError(f"{path} is not of this version of dkl: {reason}; use the version that trained it") from None
    assert isinstance(cfg, DictConfig)
    return cfg


def typed(cfg: DictConfig, root: type[T]) -> T:
    """Convert ``cfg`` to its dataclass ``root``, with all interpolations resolved; other nodes become dictionaries."""
    config = OmegaConf.to_object(cfg)
    if not isinstance(config, root):  # read from a file: YAML keeps no types
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(root), cfg))
    assert isinstance(config, root)
    return config


def plain(cfg: Any, **options: Any) -> dict[Any, Any]:
    """Return a mapping of OmegaConf as a dictionary; ``options`` are those of ``OmegaConf.to_container``."""
    content = OmegaConf.to_container(cfg, **options)
    assert isinstance(content, dict)
    return content


def unknown_keys(content: Mapping[Any, Any], root: type[Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the dotted keys of ``content``, plain values of the dataclass ``root``, that it has no field for.

    With each key come the fields that stand beside it. Groups without a dataclass may have any key.
    """
    kinds = {field.name: field.type for field in fields(root)}
    for key, value in content.items():
        if key not in kinds:
            yield f"{prefix}{key}", list(kinds)
        nested = next((kind for kind in (kinds.get(key), *get_args(kinds.get(key))) if is_dataclass(kind)), None)
        if isinstance(nested, type) and isinstance(value, Mapping):
            yield from unknown_keys(value, nested, f"{prefix}{key}.")


def check_known(cfg: DictConfig, root: type[Any]) -> None:
    """Raise UserError if ``cfg`` has a key that the dataclass ``root`` does not have, or lacks one that it has."""
    content = plain(cfg, resolve=False)
    for key, known in unknown_keys(content, root):
        raise UserError(f"there is no key {key!r}: {choose_from(key.rpartition('.')[2], known)}")
    if removed := next((field.name for field in fields(root) if field.name not in content), None):
        raise UserError(f"{removed} cannot be removed: leave out ~{removed}")


def field_lines(config: type) -> dict[str, str]:
    """Map each field of a dataclass of the schema to the line of documentation under it, inherited fields last.

    Python does not keep these lines, so they are read from the source.
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    lines: dict[str, str] = {}
    for statement, below in pairwise(definition.body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                lines[name] = text
    inherited = config.__base__
    return lines | field_lines(inherited) if inherited and is_dataclass(inherited) else lines
