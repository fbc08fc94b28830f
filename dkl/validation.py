"""Ranges of numbers and choices of words, declared once in annotations, and checks of settings against them.

    epochs: Annotated[int, Range(1, 1e6)] = 20
    weights: Annotated[str | None, OneOf("last", "average", "best")] = None

A field's line of documentation contains the text of its range. The type is checked too, because YAML gives arguments of
constructors without one: an ``int`` is a whole number, a ``float`` any number, a ``bool`` true or false, and no text is
a number. Losses use this file, so it imports Python alone, and pydantic only in the function that needs it.
"""

import inspect
import math
import re
import reprlib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from dkl.errors import UserError, choose_from

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationError
    from pydantic_core import CoreSchema

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; both ends belong to it, except ``low`` if ``above``, ``high`` if ``below``.

    NaN and infinity are outside. ``usual`` are the ends of the values in common use, by which a loss that is not finite
    finds its likely cause. ``scale`` recognizes values on another scale, such as 255 for gray levels.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    usual: tuple[float, float] | None = None
    scale: float | None = None

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return over and under  # every comparison with NaN is false

    def __str__(self) -> str:
        if self.high <= 1:
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"
        low, high = (
            f"1e{len(text) - 1}" if re.fullmatch("10{5,}", text) else text  # 1e6 for a million
            for text in (f"{end:.15g}" for end in (self.low, self.high))
        )
        return f"above {low} and at most {high}" if self.above else f"from {low} to {high}"


class OneOf:
    """Values that a setting may have, mostly words. Also checks a field of pydantic, which stays a plain ``str``.

    Such a field also takes texts that begin with ``prefix``.
    """

    def __init__(self, *allowed: object, prefix: str = "") -> None:
        self.allowed, self.prefix = allowed, prefix

    def __str__(self) -> str:
        *others, last = (str(value).lower() if isinstance(value, bool) else str(value) for value in self.allowed)
        return f"{', '.join(others)} or {last}"

    def parse(self, key: str, text: str) -> str:
        """Return ``text``, the value of an option ``key``. Raises UserError if it is not allowed."""
        if text not in self.allowed:
            raise UserError(f"{key}={text} is unknown: {choose_from(text, map(str, self.allowed))}, or leave it out")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core.core_schema import no_info_after_validator_function

        known = [*map(str, self.allowed), *([f"{self.prefix}NAME"] if self.prefix else [])]

        def check(text: str) -> str:
            if text not in self.allowed and not (self.prefix and text.startswith(self.prefix) and text != self.prefix):
                raise ValueError(f"{text!r} is unknown: {choose_from(text, known)}")
            return text

        return no_info_after_validator_function(check, handler(source))


BATCH = Range(1, 1e6)
CLASSES = Range(1, 1e5)
COUNT = Range(1, 1e9)
DEGREES = Range(0, 180)
DEVICES = Range(1, 10_000)
EPOCHS = Range(0, 1e6)
FRACTION = Range(0, 1, below=True)
LABEL = Range(-(2**15), 2**16 - 1)
MEAN = Range(0, 1, scale=255)
MIXING = Range(0, 1000)
PIXELS = Range(0, 1000)
PRIOR_MOMENTUM = Range(0, 1, above=True)
RATE = Range(0, 1000, usual=(0, 1))
REPEATS = Range(1, 1000)
SCALE = Range(0, 100, above=True)
SEED = Range(0, 2**32 - 1)
SHARE = Range(0, 1)
CROPPED = Range(0, 1, above=True)
SIDE = Range(1, 1e5)
STD = Range(0, 1, above=True, scale=255, usual=(0.01, 1))
STEPS = Range(0, 1e5)
TEMPERATURE = Range(0, 1e4, above=True, usual=(0.1, 1000))
THREADS = Range(1, 1024)
WEIGHT = Range(0, 1e6, usual=(0, 100))


class NumberType(NamedTuple):
    """What an annotation says: int, float or bool (None for any other type), what is allowed, and what surrounds it."""

    kind: type | None
    allowed: Range | OneOf | None
    sequence: bool
    optional: bool


def number_type(annotation: Any) -> NumberType:
    """Read an annotation such as ``Annotated[list[float] | None, Range(0, 1)]``."""
    allowed: Range | OneOf | None = None
    sequence = optional = False
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            allowed = next((item for item in arguments[1:] if isinstance(item, Range | OneOf)), allowed)
            annotation = arguments[0]
        elif origin in (Union, UnionType) and len(rest := [kind for kind in arguments if kind is not type(None)]) == 1:
            annotation, optional = rest[0], True
        elif inspect.isclass(origin) and issubclass(origin, Sequence) and not sequence:
            annotation, sequence = arguments[0], True
        else:
            kind = annotation if annotation in (int, float, bool) else None
            return NumberType(kind, allowed, sequence, optional)


def problem(annotation: Any, value: object) -> str | None:
    """Describe what a value of ``annotation`` must be, or return None if ``value`` is that."""
    kind, allowed, sequence, optional = number_type(annotation)
    if value is None and optional:
        return None
    if isinstance(allowed, OneOf):
        return None if value in allowed.allowed else str(allowed)
    if kind is None:
        return None
    text = f" {allowed}" if allowed else ""
    if not sequence:
        entries: list[Any] = [value]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        entries = list(value)
    else:
        return f"a list of numbers{text}"
    # An int is a float, but true and false are no numbers.
    kinds = (int, float) if kind is float else (kind,)
    if all(
        issubclass(type(entry), kinds)
        and (kind is bool) == isinstance(entry, bool)
        and math.isfinite(entry)
        and (allowed is None or entry in allowed)
        for entry in entries
    ):
        return None
    noun = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
    noun = noun.removeprefix("a ") + "s" if sequence else noun
    if allowed and (scale := allowed.scale) and all(isinstance(entry, int | float) for entry in entries):
        divided = [round(entry / scale, 4) for entry in entries]
        if all(entry in allowed for entry in divided):
            meant = divided[0] if len(divided) == 1 else divided
            return f"{noun}{text}; did you mean {meant}, which is that divided by {scale:g}?"
    return f"{noun}{text}"


class Setting(NamedTuple):
    """A setting's place in the configuration, the annotation with its type and range, and its value."""

    key: str
    annotation: Any
    value: Any


def hints(target: Any) -> dict[str, Any]:
    """Name -> annotation of the arguments of a function or class, including those that it passes to its bases.

    A class whose signature has plain types has the annotations with ranges in ``_ranged``.
    """
    functions: list[Any] = [target]
    if isinstance(target, type):
        functions = [vars(base)["__init__"] for base in reversed(target.__mro__) if "__init__" in vars(base)]
    annotations: dict[str, Any] = {}
    for function in functions:
        with suppress(
            NameError, TypeError
        ):  # a class of the user's whose annotations cannot be evaluated, or a builtin
            annotations |= typing.get_type_hints(function, include_extras=True)
    return annotations | getattr(target, "_ranged", {})


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


def check(chosen: Iterable[Setting]) -> None:
    """Raise UserError if a setting is outside its range."""
    for key, annotation, value in chosen:
        if wanted := problem(annotation, value):
            shown = value if isinstance(number_type(annotation).allowed, OneOf) else repr(value)
            raise UserError(f"{key}={shown} must be {wanted}")


def check_fields(config: Any, key: str = "") -> None:
    """Raise UserError if a field of the dataclass ``config``, or of a dataclass in it, is outside its range."""
    check(fields_of(config, key))


def unusual(chosen: Iterable[Setting]) -> list[str]:
    """Describe the settings that are in their range, but outside the values in common use."""
    described = []
    for key, annotation, value in chosen:
        allowed = number_type(annotation).allowed
        if isinstance(allowed, Range) and allowed.usual and value is not None:
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


def first_mistake(error: "ValidationError", models: Mapping[str, type]) -> str:
    """Describe the first mistake in an error of pydantic in one line.

    ``models`` has the validated dataclass under ``""`` and its nested dataclasses under the field that holds them: if a
    field is unknown, their fields are listed.
    """
    # A file of another schema may break every other rule too: its schema number is the mistake to report.
    first = min(error.errors(), key=lambda mistake: mistake["loc"] != ("schema",))
    location, kind = [str(part) for part in first["loc"]], first["type"]
    path = ".".join(location)
    if kind == "value_error":
        return ": ".join(filter(None, [path, str(first["ctx"]["error"])]))
    if kind.startswith("missing"):
        return f"{path} is missing"
    if kind == "unexpected_keyword_argument":
        known = fields(models[location[0] if len(location) > 1 else ""])
        return f"there is no field {path}: {choose_from(location[-1], sorted(item.name for item in known))}"
    if not path:  # such as text that is no JSON
        return first["msg"]
    return f"{path} is {reprlib.repr(first['input'])}, {first['msg'].replace('Input should', 'it should')}"
