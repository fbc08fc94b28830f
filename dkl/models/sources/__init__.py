"""Networks of other people, named in one line: ``package.module:function``, ``timm:NAME``, ``hf-hub:USER/MODEL``,
``local-dir:FOLDER``, ``robustbench:NAME``, or a file that holds a network with its weights.

``resolve`` turns such a text into a ``Source``: the configuration of the network, and where its weights are. Every kind
of text is one function of ``SCHEMES``.
"""

from collections.abc import Callable

from dkl.errors import UserError, choose_from
from dkl.models.sources import hub, imported, robustbench, timm_names
from dkl.models.sources.graphs import graph_source, is_graph
from dkl.models.sources.source import Images, Request, Source

__all__ = ["SCHEMES", "Images", "Request", "Source", "graph_source", "images_of", "is_graph", "resolve"]

SCHEMES: dict[str, Callable[[str, Request], Source]] = {
    "timm": timm_names.resolve,
    "hf-hub": hub.resolve_hub,
    "local-dir": hub.resolve_folder,
    "robustbench": robustbench.resolve,
}
"""The function that resolves the text after ``scheme:``."""


def resolve(text: str, request: Request) -> Source:
    """Return the network that ``text`` names, for the images of ``request``.

    Any scheme that is not in ``SCHEMES`` is a module to import. Raises UserError if there is no such network, or if it
    does not fit the request. Weights may be downloaded, into torch's cache.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or not rest:
        forms = ", ".join(f"{name}:…" for name in SCHEMES)
        raise UserError(f"model={text} names no network: write package.module:function, or one of {forms}")
    if scheme in SCHEMES:
        return SCHEMES[scheme](rest, request)
    if not scheme.replace(".", "").isidentifier():
        known = [*SCHEMES, "package.module"]
        raise UserError(f"model={text}: {scheme!r} is no kind of network: {choose_from(scheme, known)}")
    return imported.resolve(text, request)


KNOWN_IMAGES: dict[str, Callable[[str], Images | None]] = {
    "timm": timm_names.images,
    "hf-hub": hub.images_of_hub,
    "local-dir": hub.images_of_folder,
    "robustbench": robustbench.images,
}
"""The function that knows the images that the network after ``scheme:`` is for."""


def images_of(text: str) -> Images | None:
    """Return the images that the network ``text`` is for; None if its name does not tell. Raises as ``resolve``."""
    scheme, _, rest = text.partition(":")
    return KNOWN_IMAGES[scheme](rest) if scheme in KNOWN_IMAGES else None
