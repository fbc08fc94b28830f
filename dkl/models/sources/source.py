"""Input and result of resolving a network's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dkl.errors import UserError
from dkl.models.create import normalize_input


class KnownImages(NamedTuple):
    """The images that a network is for: their dataset, empty if not known, the classes, and the shape (C, H, W)."""

    dataset: str
    num_classes: int
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The images that a network is wanted for, and what the user gave beside its name.

    ``shape`` is (C, H, W). ``arguments`` go to the network's constructor; ``mean`` and ``std``, one value per channel,
    normalize the input inside the network. ``checkpoint`` is a file with the weights. ``trust``: it may be a program.
    """

    num_classes: int
    shape: Sequence[int]
    dataset: str = ""
    norm: str | None = None
    checkpoint: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    trust: bool = False

    @property
    def normalization(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` as arguments; empty without them. Raises UserError if only one was given."""
        if (self.mean is None) != (self.std is None):
            raise UserError("mean and std go together: give both, or neither")
        if self.mean is None or self.std is None:
            return {}
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise UserError(
                f"mean={list(self.mean)} and std={list(self.std)} must have one value per channel, of which there are "
                f"{self.shape[0]}"
            )
        return {"mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A network of somebody else.

    ``model`` is its configuration, with ``_target_``. ``weights`` is the file of its weights; None if the constructor
    loads them. ``holds_network``: that file holds the network too, and the user trusts it. The rest are defaults of its
    evaluation: the name of the method, the norm and radius it was trained for, whether real images of other datasets
    were used, and which of ``PREPROCESSINGS`` its publisher applies to images.
    """

    model: dict[str, Any]
    weights: Path | None
    holds_network: bool = False
    label: str | None = None
    norm: str | None = None
    eps: str | None = None
    additional_data: bool = False
    preprocessing: str | None = None


def normalized(network: nn.Module, mean: Sequence[float], std: Sequence[float], name: str = "") -> nn.Module:
    """Return ``network`` for images in [0, 1], which it normalizes itself by ``mean`` and ``std`` per channel.

    ``name`` is its name in records, and has no effect here.
    """
    return normalize_input(network, mean, std)
