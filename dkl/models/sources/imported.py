"""``package.module:function``: a function or class of the user's own that returns a network.

Its code runs: it is the user's choice, never named by a file of weights.
"""

import inspect
from collections.abc import Callable
from typing import Any

from dkl.errors import UserError
from dkl.importing import import_object
from dkl.models.sources.source import Request, Source


def _arguments(function: Callable[..., Any], request: Request) -> dict[str, Any]:
    """The facts about the images that ``function`` has parameters for, and the arguments that the user gave."""
    facts = {
        "num_classes": request.num_classes,
        "in_chans": request.shape[0],
        "in_channels": request.shape[0],
        "shape": list(request.shape),
    }
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins have none
        parameters = {}  # type: ignore[assignment]  # nothing is looked up in it
    return {key: value for key, value in facts.items() if key in parameters} | dict(request.arguments)


def resolve(text: str, request: Request) -> Source:
    """Return the network that the function in ``text`` makes; ``num_classes``, ``in_chans`` and ``shape`` are passed if
    it takes them.

    Raises UserError if it cannot be imported, or if no file of weights was given.
    """
    function = import_object(text)
    if request.checkpoint is None:
        raise UserError(f"model={text} has no weights: add checkpoint=FILE")
    model = {"_target_": text.replace(":", "."), **_arguments(function, request)}
    if constants := request.normalization:
        wrapper = {"_target_": "dkl.models.sources.source.normalized", "name": text.rpartition(":")[2]}
        model = {**wrapper, "network": model, **constants}
    return Source(model=model, weights=request.checkpoint)
