"""The saved progress of an evaluation: which images are still correct, and which batches of which attack are done.

Every process writes its own file. The state is the union of all files, however many processes wrote them: an image is
correct if no file has it as misclassified, and a batch is done if any file has it as done. Both facts are final. Files
of a stopped evaluation therefore stay valid beside those of its continuation, even with another number of processes.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.storage.files import damage, write_atomically

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class AttackProgress:
    """The progress of one attack: ``flags[N]`` of correct images and ``seconds[batches]``, NaN if not done yet.

    ``nonfinite[batches]`` counts the images whose logits under the attack were not finite.
    """

    flags: Bools
    seconds: NDArray[np.float64]
    nonfinite: NDArray[np.int64]

    @classmethod
    def begin(cls, flags: Bools, batches: int) -> "AttackProgress":
        """Start an attack in ``batches`` batches on the images that are correct so far."""
        return cls(flags.copy(), np.full(batches, np.nan), np.zeros(batches, dtype=np.int64))

    @property
    def done(self) -> Bools:
        """Whether each batch is done."""
        return ~np.isnan(self.seconds)

    def __and__(self, other: "AttackProgress") -> "AttackProgress":
        """Combine the progress of two processes, or of an earlier and a later one."""
        # fmax ignores NaN, so a batch that one of the two finished is done.
        return AttackProgress(
            self.flags & other.flags,
            np.fmax(self.seconds, other.seconds),
            np.maximum(self.nonfinite, other.nonfinite),
        )


EvaluationState = dict[str, AttackProgress]
"""Maps each attack to its progress, in the order of the attacks; ``clean`` is the first."""


def merge(states: Iterable[EvaluationState]) -> EvaluationState:
    """Combine the states of several processes or files."""

    def combine(one: EvaluationState, other: EvaluationState) -> EvaluationState:
        return one | {name: one[name] & new if name in one else new for name, new in other.items()}

    return reduce(combine, states, {})


def save(state: EvaluationState, path: Path) -> None:
    """Write ``state`` to ``path`` atomically."""
    arrays: dict[str, Any] = {f"flags/{name}": progress.flags for name, progress in state.items()}
    arrays |= {f"seconds/{name}": progress.seconds for name, progress in state.items()}
    arrays |= {f"nonfinite/{name}": progress.nonfinite for name, progress in state.items()}
    content = io.BytesIO()  # numpy seeks in what it writes, so the archive is built in memory first
    np.savez(content, **arrays)
    write_atomically(path, lambda file: file.write(content.getvalue()))


def _load_file(path: Path, images: int | None) -> EvaluationState:
    advice = f"delete {path.parent}, and the same command evaluates from the start"
    if why := damage(path):
        raise UserError(f"{path} is damaged ({why}): {advice}")
    with np.load(path, allow_pickle=False) as content:
        names = [name.removeprefix("flags/") for name in content.files if name.startswith("flags/")]
        parts = ("flags", "seconds", "nonfinite")
        if not {f"{part}/{name}" for part in parts for name in names} <= set(content.files):
            raise UserError(f"{path} is of another version of dkl: {advice}")
        found = {name: AttackProgress(*(content[f"{part}/{name}"] for part in parts)) for name in names}
    if images is not None and "clean" in found and (size := len(found["clean"].flags)) != images:
        raise UserError(f"{path} is of {size} images, not {images}: {advice}")
    return found


def load(folder: Path | None, images: int | None = None) -> EvaluationState:
    """Combine all files in ``folder``; the state is empty without files.

    Raises UserError if one is damaged, of another version, or of another number of ``images`` if that is given.
    """
    if folder is None:
        return {}
    return merge(_load_file(path, images) for path in sorted(folder.glob("*.npz")))
