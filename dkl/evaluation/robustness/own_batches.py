"""Attacks some images of a finished evaluation again in the batches in which they were attacked.

An attack draws at random for a whole batch, so an image gets the same draws only in the batch that it had. Before each
attack the images that were still correct were cut into batches, so the flags of the evaluation tell which they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.attacks import Perturb, frozen_eval
from dkl.evaluation.robustness.attack_loop import AttackLoop, IsCorrect
from dkl.evaluation.robustness.places import cut, unplaced
from dkl.evaluation.robustness.progress import Bools
from dkl.evaluation.robustness.suites import attack_cost
from dkl.tasks.base import top1, top5


@dataclass(frozen=True)
class OwnBatches:
    """The ``flags[N]`` that an evaluation of all images of ``loop`` by ``attacks`` found, to be found again."""

    loop: AttackLoop
    attacks: Mapping[str, Perturb]
    flags: Mapping[str, Bools]
    num_classes: int

    def differing(self, first: NDArray[np.int64], *, enough: int) -> Bools:
        """Return which images ``[N]`` get other flags in their own batches.

        Image i is evaluated again from stage ``first[i]`` on: 0 is clean, 1 the first attack, and so on. Images whose
        stage is beyond the last attack are left alone. Stops if ``enough`` images differ; the images that are not
        decided by then count as differing.
        """
        stages = ("clean", *self.attacks)
        differ, before = np.zeros(len(first), dtype=np.bool_), np.ones(len(first), dtype=np.bool_)
        for stage, name in enumerate(stages):
            for number, batch in enumerate(cut(before, self.loop.batch_size)):
                members = batch.numpy()
                asked = members[(first[members] <= stage) & ~differ[members]]
                if len(asked):
                    differ[asked] = self._differs(name, batch, number)[asked]
                if differ.sum() >= enough:
                    return first < len(stages)
            before = self.flags[name]
        return differ

    @torch.no_grad()
    def _differs(self, name: str, batch: Tensor, number: int) -> Bools:
        """Attack the whole ``batch`` by ``name``; return which of its images have other flags, ``[N]``."""
        rules: dict[str, IsCorrect] = {"clean": top1, "top5": top5} if name == "clean" else {name: top1}
        saved = {key: f"{key} batch {number}" for key in rules if key in self.flags}
        perturb = unplaced(self.attacks[name]) if name in self.attacks else lambda x, y, chosen: x
        passes = attack_cost(name, self.num_classes).forward + 1 if name in self.attacks else 1
        criteria, start = {saved[key]: rules[key] for key in saved}, np.ones(len(self.flags["clean"]), dtype=np.bool_)
        with frozen_eval(self.loop.model):
            self.loop.attack(criteria, perturb, start, passes, batches=[batch])
        differ = [self.loop.state[entry].flags != self.flags[key] for key, entry in saved.items()]
        return np.asarray(np.logical_or.reduce(differ))
