"""dkl: decoupled Kullback-Leibler divergence losses, and everything needed to reproduce their paper.

``dkl.load_model(name)`` returns a network with its weights; see ``dkl.sharing``.
"""

from typing import Any

__all__ = ["__version__", "load_model"]

__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """Import ``load_model`` when it is used, so that ``import dkl`` needs no torch."""
    if name == "load_model":
        from dkl.sharing import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
