"""Where an evaluation is, on disk: which images still stand, and which batches of which attack are done.

Every process writes a file of its own. All of them together, of however many processes, are the state: an image stands
where no file says it fell, and a batch is done where one says so. Each is true for good, so files of an evaluation that
was stopped stay right beside those of the one that goes on, whatever its number of processes.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkl.files import write_atomically

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class AttackProgress:
    """One attack: ``flags[n]`` of what stands, and the ``seconds[batches]`` it took, NaN where a batch is to do."""

    flags: Bools
    seconds: NDArray[np.float64]

    @property
    def done(self) -> Bools:
        """Whether each batch is done."""
        return ~np.isnan(self.seconds)

    def __and__(self, other: "AttackProgress") -> "AttackProgress":
        """What two processes, or an earlier and this one, know together."""
        return AttackProgress(self.flags & other.flags, np.fmax(self.seconds, other.seconds))


State = dict[str, AttackProgress]
"""Attack -> where it is, in the order of the attacks; ``clean`` is the first."""


def merge(states: Iterable[State]) -> State:
    """What all ``states`` know together."""

    def both(one: State, other: State) -> State:
        return one | {name: one[name] & new if name in one else new for name, new in other.items()}

    return reduce(both, states, {})


def save(state: State, path: Path) -> None:
    """Write ``state`` atomically, flags as they are."""
    arrays: dict[str, Any] = {f"flags/{name}": standing.flags for name, standing in state.items()}
    arrays |= {f"seconds/{name}": standing.seconds for name, standing in state.items()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(path, lambda file: file.write(content.getvalue()))


def _load_file(path: Path) -> State:
    with np.load(path, allow_pickle=False) as content:
        names = [name.removeprefix("flags/") for name in content.files if name.startswith("flags/")]
        return {name: AttackProgress(content[f"flags/{name}"], content[f"seconds/{name}"]) for name in names}


def load(folder: Path) -> State:
    """What the files in ``folder`` know together; nothing where there are none."""
    return merge(_load_file(path) for path in sorted(folder.glob("*.npz")))
