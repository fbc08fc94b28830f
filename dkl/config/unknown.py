"""Keys that no field of the typed configuration has: Hydra adds them by ``+``, and nothing reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from dkl.errors import UserError, choose_from


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
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    for key, known in unknown_keys(content, root):
        raise UserError(f"there is no key {key!r}: {choose_from(key.rpartition('.')[2], known)}")
    if removed := next((field.name for field in fields(root) if field.name not in content), None):
        raise UserError(f"{removed} cannot be removed: leave out ~{removed}")
