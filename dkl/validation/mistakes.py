"""Helpers for pydantic: fields with few allowed texts, and errors as one line that names field and fix."""

import reprlib
from collections.abc import Mapping
from dataclasses import fields

from pydantic import AfterValidator, ValidationError

from dkl.errors import choose_from


def one_of(*allowed: str) -> AfterValidator:
    """Accept only the ``allowed`` texts. Unlike a Literal, the field stays a plain ``str`` for type checkers."""

    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is unknown: {choose_from(text, allowed)}")
        return text

    return AfterValidator(check)


def first_mistake(error: ValidationError, models: Mapping[str, type]) -> str:
    """Describe the first mistake in ``error`` in one line.

    ``models`` has the validated dataclass under ``""`` and its nested dataclasses under the field that holds them; it
    serves to list the known fields if one is unknown.
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
