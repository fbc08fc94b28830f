"""Checks of settings: the fields of a dataclass, or the arguments of a function or class, by their annotations."""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from dkl.errors import UserError
from dkl.validation.numbers import number_type, problem

F = TypeVar("F", bound=Callable[..., Any])


class Setting(NamedTuple):
    """A setting's place in the configuration, the annotation with its type and range, and its value."""

    key: str
    annotation: Any
    value: Any


def hints(target: Any) -> dict[str, Any]:
    """Name -> annotation of the arguments of a function or class, including those that it passes to its bases."""
    functions: list[Any] = [target]
    if isinstance(target, type):
        functions = [vars(base)["__init__"] for base in reversed(target.__mro__) if "__init__" in vars(base)]
    found: dict[str, Any] = {}
    for function in functions:
        try:
            found |= typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError):  # a class of the user's whose annotations cannot be evaluated, or a builtin
            continue
    return found


def settings(target: Any, values: Mapping[str, Any], key: str = "") -> Iterator[Setting]:
    """Yield those of ``values`` that are arguments of ``target``; ``key`` is their place in the configuration."""
    known = hints(target)
    for name, value in values.items():
        if name in known:
            yield Setting(f"{key}.{name}" if key else name, known[name], value)


def fields_of(config: Any, key: str = "") -> Iterator[Setting]:
    """Yield the fields of the dataclass ``config``, and those of dataclasses in it."""
    yield from settings(type(config), vars(config), key)
    for name, value in vars(config).items():
        if is_dataclass(value):
            yield from fields_of(value, f"{key}.{name}" if key else name)


def check(found: Iterable[Setting]) -> None:
    """Raise UserError if a setting is outside its range."""
    for setting in found:
        if wanted := problem(setting.annotation, setting.value):
            raise UserError(f"{setting.key}={setting.value!r} must be {wanted}")


def check_fields(config: Any, key: str = "") -> None:
    """Raise UserError if a field of the dataclass ``config``, or of a dataclass in it, is outside its range."""
    check(fields_of(config, key))


def unusual(found: Iterable[Setting]) -> list[str]:
    """Describe the settings that are in their range, but outside the values in common use."""
    described = []
    for key, annotation, value in found:
        allowed = number_type(annotation).allowed
        if allowed and allowed.usual and value is not None:
            low, high = allowed.usual
            entries = value if isinstance(value, Sequence) else [value]
            if not all(low <= entry <= high for entry in entries):
                described.append(f"{key}={value} (usually from {low:g} to {high:g})")
    return described


def check_arguments(key: str) -> Callable[[F], F]:
    """Decorate a function: before it runs, raise UserError if an argument is outside its range; ``key`` as above."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check(settings(function, signature.bind(*args, **kwargs).arguments, key))
            return function(*args, **kwargs)

        return checked  # type: ignore[return-value]  # wraps keeps the signature

    return decorate
