"""The result of fab-t and square on a random sample of the images that apgd-ce and apgd-t did not fool."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dkl.evaluation.robustness.places import places
from dkl.evaluation.robustness.progress import Bools
from dkl.records.sampling_bound import Interval


@dataclass(frozen=True)
class Known:
    """Which images an attack has already ``tested[N]``, and which of them are ``correct[N]`` after it."""

    tested: Bools
    correct: Bools

    def remaining(self, correct: Bools) -> Bools:
        """Remove from ``correct[N]`` the tested images that the attack fooled."""
        return correct & (~self.tested | self.correct)


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """The sample ``[N]``, and which images are correct ``[N]`` before it, after fab-t and after square.

    ``interval`` bounds how many of the images before it both attacks would fool together. ``placed`` are the attacks
    whose draws depend on an image's place in its batch only, and ``seconds`` the time of each attack.
    """

    sampled: Bools
    before: Bools
    after: Mapping[str, Bools]
    interval: Interval
    placed: frozenset[str]
    seconds: Mapping[str, float]

    def known(self, attack: str, correct: Bools, batch_size: int) -> Known | None:
        """Return the results of ``attack`` that also hold for all images that are ``correct[N]``; None if none do.

        fab-t draws nothing at random, so its results hold. square used the places of the images before fab-t. Its
        results hold for images that still have the same place in a batch of the same length.
        """
        if attack == "fab-t":
            return Known(self.sampled, self.after["fab-t"])
        if attack != "square" or "square" not in self.placed:
            return None
        (place, length), (new_place, new_length) = places(self.before, batch_size), places(correct, batch_size)
        same = correct & (place == new_place) & (length == new_length)
        return Known(np.logical_and(self.sampled, same), self.after["square"])
