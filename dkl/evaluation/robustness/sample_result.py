"""What fab-t and square did to a random sample of the images that apgd-ce and apgd-t had left."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dkl.bound import Interval
from dkl.evaluation.robustness.places import places
from dkl.evaluation.robustness.progress import Bools


@dataclass(frozen=True)
class Known:
    """The images ``tested[N]`` of an attack, and which of them ``stands[N]``."""

    tested: Bools
    stands: Bools

    def remaining(self, correct: Bools) -> Bools:
        """``correct[N]`` without the tested images that fell."""
        return correct & (~self.tested | self.stands)


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """The sample ``[N]``, and which images are correct ``[N]`` before it, after fab-t and after square.

    ``interval`` bounds how many of the images before it would fall. ``placed`` are the attacks whose draws depend on an
    image's place in its batch only; ``seconds`` are those of each attack.
    """

    sampled: Bools
    before: Bools
    after: Mapping[str, Bools]
    interval: Interval
    placed: frozenset[str]
    seconds: Mapping[str, float]

    def known(self, attack: str, correct: Bools, batch_size: int) -> Known | None:
        """What is known of ``attack`` on the images that are ``correct[N]``; None if nothing is.

        fab-t draws nothing. square drew as if fab-t had changed nothing: the images that then lay at the same place of
        a batch of the same length have their results, the others are attacked again.
        """
        if attack == "fab-t":
            return Known(self.sampled, self.after["fab-t"])
        if attack != "square" or "square" not in self.placed:
            return None
        (place, length), (new_place, new_length) = places(self.before, batch_size), places(correct, batch_size)
        same = correct & (place == new_place) & (length == new_length)
        return Known(np.logical_and(self.sampled, same), self.after["square"])
