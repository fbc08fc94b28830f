"""Titles of figures, in lines that fit into a column, and their file names."""

from collections.abc import Callable, Mapping
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from dkl.manifests import Manifest

Drawing = tuple[str, Callable[[], Figure]]
"""A file name without extension, and the function that draws the figure."""

TITLE_WIDTH = 46
"""Characters of a title that fit into a column."""


def title_of(*parts: str, width: int = TITLE_WIDTH) -> str:
    """Join ``parts`` by commas, in lines of ``width`` characters that end at commas unless a part is too long."""
    # Spaces inside a part do not break, so that lines end at commas.
    kept = (part if len(part) > width else part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts if part)
    return fill(", ".join(kept), width).replace("\N{NO-BREAK SPACE}", " ")


def seed_text(about: Mapping[str, Any]) -> str:
    """Return ``seed N``, or nothing for weights trained elsewhere."""
    return "" if about["seed"] is None else f"seed {about['seed']}"


def file_name(manifest: Manifest, part: str, budget: str) -> str:
    """Return the file name of a ``part`` of a figure, which ends in the budget unless it is ``paper``."""
    name = manifest.name + part if manifest.kind else f"features-{manifest.name}-{part}"
    return name + ("" if budget == "paper" else f"-{budget}")
