"""Bounded AutoAttack: fab-t and square on a random sample, and a bound for all images.

apgd-ce and apgd-t attack every image. fab-t and square take most of the time and seldom fool an image that apgd-ce and
apgd-t did not fool, so they attack a sample that is drawn without replacement. The number of images fooled in the
sample bounds the number among all images (``dkl.sampling_bound``). The sample grows until this interval is
narrow enough. If that needs every image, the standard suite is run instead.

A pass of a few images takes nearly as long as one of more, and a sample that does not suffice has cost time. So passes
are timed before each part of the sample: the standard suite also runs unless the part may save far more than it may
lose.

Single images are sampled, not AutoAttack's batches. Images of one batch may be fooled together, and 20 batches of 200
images are too few for a useful bound. The result of an image must then not depend on the other images of the sample.
fab-t draws nothing at random, and square draws by an image's place in AutoAttack's batches, which is kept (``placed``).
For L2, square draws per batch of the sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dkl.attacks.autoattack.attack_loop import (
    Arranged,
    AttackLoop,
    AttackProgress,
    Bools,
    draws_of,
    placed,
    places,
    unplaced,
)
from dkl.attacks.autoattack.classifier import pass_seconds, scaled
from dkl.attacks.named import top1
from dkl.attacks.pgd import Perturb
from dkl.console import say
from dkl.errors import UserError
from dkl.runtime.distributed import from_first
from dkl.sampling_bound import Interval, count_interval, draws_needed
from dkl.threat import SAMPLED, AttackCost, known_attack

_CAUTION = 4
"""How many times its possible loss a part of the sample must save: times vary, and a loss is what nobody expects."""


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

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest accuracy of all images, with 95 % confidence."""
        n, standing = len(self.before), int(self.before.sum())
        return (standing - self.interval.high) / n, (standing - self.interval.low) / n

    def tested(self, attack: str, correct: Bools, batch_size: int) -> Bools:
        """The images ``[N]`` whose results of ``attack`` also hold if it attacks all that are ``correct[N]``.

        fab-t draws nothing at random, so its results hold. square used the places of the images before fab-t. Its
        results hold for images that still have the same place in a batch of the same length.
        """
        if attack == "fab-t":
            return self.sampled
        if attack != "square" or "square" not in self.placed:
            return np.zeros_like(correct)
        (place, length), (new_place, new_length) = places(self.before, batch_size), places(correct, batch_size)
        return self.sampled & correct & (place == new_place) & (length == new_length)


def _pays(
    loop: AttackLoop,
    attacks: Mapping[str, Perturb],
    chosen: Mapping[str, Arranged],
    costs: Mapping[str, AttackCost],
    parts: Sequence[Tensor],
    done: int,
    count: int,
) -> bool:
    """Whether attacking ``count`` parts, of which some are ``done``, saves more than it may lose.

    Parts are attacked as ``chosen``. The times are those of images that do not fall.
    """
    sizes = [len(part) for part in parts]
    population, left, more = sum(sizes), sum(sizes[done:]), sum(sizes[done:count])
    task = loop.task

    @cache
    def timed(count: int) -> float:
        images = task.images[torch.arange(count) % len(task.images)]
        try:
            return min(pass_seconds(task.searched, scaled(images).to(task.device)) for _ in range(3))
        except (torch.OutOfMemoryError, UserError) as error:
            if count == 1 or not isinstance(error.__cause__ or error, torch.OutOfMemoryError):
                raise
            loop.together = count // 2  # as if an attack had needed too much
            return timed(count // 2) + timed(count - count // 2)

    def seconds(count: int, together: int) -> float:
        whole, rest = divmod(count, together)
        return (whole * timed(together) if whole else 0) + (timed(rest) if rest else 0)

    sample = now = later = 0.0
    for name, arranged in chosen.items():
        together = loop.batch_size if draws_of(attacks[name]) == "whole" else loop.limit()
        sample += costs[name].passes * seconds(more, loop.limit() if arranged.joint else sizes[0])
        # Results of a sample also hold for all images, unless its batches had draws of their own.
        holds = arranged.joint or name == "fab-t"
        now += costs[name].passes * seconds(left if holds else population, together)
        later += costs[name].passes * seconds(left - more if holds else population, together)
    return now - sample > _CAUTION * (sample + later - now)


def _attack_parts(
    loop: AttackLoop,
    attacks: dict[str, Arranged],
    before: Bools,
    parts: Sequence[Tensor],
    count: int,
    passes: Mapping[str, int],
) -> dict[str, Bools]:
    """Attack the first ``count`` parts by each of ``attacks``; return which images are correct after each.

    ``passes`` are the approximate forward passes per part.
    """
    correct, after = before, {}
    for name, perturb in attacks.items():
        entry = SAMPLED[name]
        # Parts that are attacked later start from what the attack before leaves of them.
        loop.state.setdefault(entry, AttackProgress.begin(correct, len(parts))).flags[:] &= correct
        correct = after[name] = loop.attack(
            {entry: top1},
            perturb,
            correct,
            passes[name],
            batches=[part[correct[part.numpy()]] for part in parts],
            first_batches=count,
        )
    return after


def attack_sample(
    loop: AttackLoop,
    attacks: dict[str, Perturb],
    before: Bools,
    *,
    width: int,
    seed: int,
    num_classes: int,
) -> tuple[SampleResult, bool]:
    """Attack a growing sample of the images that are correct ``before[N]``, until at most ``width`` are in doubt.

    Returns what it found, and whether the interval is narrow enough; otherwise every image has to be attacked.
    """
    population = int(before.sum())
    order = torch.from_numpy(np.random.default_rng(seed).permutation(np.flatnonzero(before)))
    needed = max(1, draws_needed(population, 0, 0, width=width)) if population else 0
    # Equal parts of at most a batch, so that little more than the smallest sufficient sample is attacked.
    size = math.ceil(needed / math.ceil(needed / loop.batch_size)) if population else 1
    parts = order.split(size) if population else ()
    # Their draws for an image depend on its place in AutoAttack's batches and on nothing else.
    by_place = frozenset(name for name in SAMPLED if draws_of(attacks[name]) == "place")
    chosen = {
        name: placed(attacks[name], before, loop.batch_size) if name in by_place else unplaced(attacks[name])
        for name in SAMPLED
    }
    costs = {name: known_attack(name).cost(num_classes) for name in SAMPLED}
    passes = {name: cost.forward + 1 for name, cost in costs.items()}
    drawn, after = 0, dict.fromkeys(SAMPLED, before)
    while True:
        fooled = population - int(after["square"].sum())
        interval = count_interval(population, drawn, fooled)
        enough = interval.high - interval.low <= width and (drawn > 0 or not population)
        needed = draws_needed(population, drawn, fooled, width=width) if drawn else needed
        count = math.ceil(needed / size)
        if enough:
            break
        if count >= len(parts):
            say(f"no sample can leave only {width} images in doubt: fab-t and square attack every image")
            break
        # What was begun before an interruption goes on, whatever passes take now.
        done = drawn // size
        begun = SAMPLED["fab-t"] in loop.state and loop.state[SAMPLED["fab-t"]].done[done:count].any()
        pays = "fab-t" not in loop.state and _pays(loop, attacks, chosen, costs, parts, done, count)
        if not from_first(begun or pays):
            say(f"a sample of {count * size} of {population} images saves no time: fab-t and square attack every image")
            break
        after = _attack_parts(loop, chosen, before, parts, count, passes)
        drawn = count * size
    sampled = np.zeros_like(before)
    sampled[order[:drawn].numpy()] = True
    for name, entry in SAMPLED.items():
        loop.state.setdefault(entry, AttackProgress.begin(after[name], len(parts)))
    seconds = {name: float(np.nansum(loop.state[entry].seconds)) for name, entry in SAMPLED.items()}
    result = SampleResult(
        sampled=sampled, before=before, after=after, interval=interval, placed=by_place, seconds=seconds
    )
    return result, enough
