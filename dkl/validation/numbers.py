"""Checks a value by an annotation such as ``Annotated[list[float] | None, Range(0, 1)]``: its type and its range.

The type is checked too, because YAML gives arguments of constructors without one: an ``int`` is a whole number, a
``float`` any number, a ``bool`` true or false, and no text is a number.
"""

import inspect
import math
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from dkl.validation.ranges import Range


class NumberType(NamedTuple):
    """What an annotation says: int, float or bool (None for any other type), the range, and what surrounds it."""

    kind: type | None
    allowed: Range | None
    sequence: bool
    optional: bool


def number_type(annotation: Any) -> NumberType:
    """Read an annotation such as ``Annotated[list[float] | None, Range(0, 1)]``."""
    allowed: Range | None = None
    sequence = optional = False
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            allowed = next((item for item in arguments[1:] if isinstance(item, Range)), allowed)
            annotation = arguments[0]
        elif origin in (Union, UnionType) and len(rest := [kind for kind in arguments if kind is not type(None)]) == 1:
            annotation, optional = rest[0], True
        elif inspect.isclass(origin) and issubclass(origin, Sequence) and not sequence:
            annotation, sequence = arguments[0], True
        else:
            kind = annotation if annotation in (int, float, bool) else None
            return NumberType(kind, allowed, sequence, optional)


def problem(annotation: Any, value: object) -> str | None:
    """What a value of ``annotation`` must be, if ``value`` is not that."""
    kind, allowed, sequence, optional = number_type(annotation)
    if kind is None or (value is None and optional):
        return None
    if sequence and (isinstance(value, str) or not isinstance(value, Sequence)):
        return f"a list of numbers{_text(allowed)}"
    entries: list[Any] = list(value) if sequence and isinstance(value, Sequence) else [value]
    if all(_fits(kind, allowed, entry) for entry in entries):
        return None
    wanted = f"{_noun(kind).removeprefix('a ')}s" if sequence else _noun(kind)
    return f"{wanted}{_text(allowed)}{_rescaled(allowed, entries)}"


def _noun(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _text(allowed: Range | None) -> str:
    return f" {allowed}" if allowed else ""


def _fits(kind: type, allowed: Range | None, value: object) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if not isinstance(value, int | float) or (kind is int and not isinstance(value, int)):
        return False
    return math.isfinite(value) and (allowed is None or value in allowed)


def _rescaled(allowed: Range | None, values: list[Any]) -> str:
    """A suggestion if all ``values`` are in the range on its other scale."""
    if not allowed or not allowed.scale or not all(isinstance(value, int | float) for value in values):
        return ""
    divided = [round(value / allowed.scale, 4) for value in values]
    if not all(value in allowed for value in divided):
        return ""
    text = divided[0] if len(divided) == 1 else divided
    return f"; did you mean {text}, which is that divided by {allowed.scale:g}?"
