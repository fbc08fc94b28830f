"""Attacks a network on images: its suite on every image, or bounded AutoAttack, which may become the standard suite.

``dkl evaluate`` and ``dkl.evaluation.autoattack`` both end here. Clean accuracy comes first, then each attack on the
images still classified correctly, in AutoAttack's order. The flags equal those of the package called directly.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Generic, NamedTuple

import numpy as np
import torch

from dkl.attacks.autoattack import checks
from dkl.attacks.autoattack.attack_loop import (
    UNCHANGED,
    AttackLoop,
    Bools,
    EvaluationState,
    IsCorrect,
    arranged,
    cut,
)
from dkl.attacks.autoattack.bounded import SampleResult, attack_sample
from dkl.attacks.autoattack.checks import ModelChecks
from dkl.attacks.autoattack.classifier import scaled
from dkl.attacks.autoattack.task import AttackTask, Plan
from dkl.attacks.contexts import frozen_eval
from dkl.attacks.named import margin, top1, top5
from dkl.attacks.pgd import Perturb
from dkl.console import say
from dkl.runtime.distributed import from_first, rank
from dkl.threat import AUTOATTACK, SAMPLED, known_attack


class Earlier(NamedTuple):
    """An earlier bounded evaluation of the same images, by its record's ``name``, that a standard one continues."""

    name: str
    start: EvaluationState
    sample: SampleResult
    warnings: tuple[str, ...]


class Attacked(NamedTuple, Generic[Plan]):
    """What was done and found.

    A bounded ``protocol`` that had to attack every image has become the standard one, and one for a network that is not
    a function of one image has whole batches.
    ``sample`` is what bounds the result of a bounded one; None for others.
    """

    protocol: Plan
    state: EvaluationState
    sample: SampleResult | None
    warnings: list[str]


def attack(task: AttackTask[Plan], earlier: Earlier | None = None) -> Attacked[Plan]:
    """Find the images that are classified correctly, clean and after each attack; in all processes of the group.

    Warnings are printed and returned: by the first process only.
    """
    protocol, checked, sample, past = task.protocol, ModelChecks([]), None, tuple[str, ...]()
    if protocol.attacks and rank() == 0:
        # Printed before the attacks, which may take hours and tell little about such a network.
        randomized = any(known_attack(name).attack.averages > 1 for name in protocol.attacks)
        by_gradient = next((name for name in protocol.attacks if known_attack(name).cost(2).gradients), "")
        with frozen_eval(task.classifier):
            first = slice(0, protocol.batch_size)
            x, y = scaled(task.images[first]).to(task.device), task.labels[first].to(task.device)
            checked = checks.check_model(task.classifier, x, y, randomized=randomized, by_gradient=by_gradient)
    warnings = _printed(checked.warnings)
    if from_first(checked.whole_batches):
        # Of a sample, other batches would be attacked.
        suite = protocol if protocol.tolerance is None else protocol.standard
        protocol, earlier = suite.whole(), None
    if protocol.tolerance is not None:
        protocol, state, sample, past = _attack_bounded(task, protocol)
    elif earlier:
        say(f"continues from {earlier.name}")
        state, past = _run_suite(task, protocol, start=earlier.start, sample=earlier.sample), earlier.warnings
    else:
        state = _run_suite(task, protocol)
    if protocol.attacks and rank() == 0:
        nonfinite = {name: int(state[name].nonfinite.sum()) for name in protocol.attacks}
        changed = _count_changed(task, state["clean"].flags)
        accuracies = _accuracies(state, protocol.attacks, sample)
        warnings += _printed([*past, *checks.final_warnings(accuracies, nonfinite, changed, len(task.labels))])
    return Attacked(protocol, state, sample, warnings)


def _printed(warnings: list[str]) -> list[str]:
    """Print the warnings and return them."""
    for warning in warnings:
        say(f"warning: {warning}")
    return warnings


@torch.no_grad()
def _count_changed(task: AttackTask[Plan], clean: Bools) -> int:
    """The number of images that are clearly not as ``clean[N]``, classified right or wrong in the same batches."""
    count, batches = 0, cut(np.ones_like(clean), task.protocol.batch_size)
    with frozen_eval(task.classifier):
        for chosen in batches:
            x, y = scaled(task.images[chosen]).to(task.device), task.labels[chosen].to(task.device)
            logits = task.classifier(x)
            # An earlier process may have rounded in another way.
            clear = margin(logits, y).abs() > 1e-3 * logits.norm(dim=1)
            count += int((clear.cpu() & (top1(logits, y).cpu() != torch.from_numpy(clean)[chosen])).sum())
    return count


def _accuracies(state: EvaluationState, attacks: list[str], sample: SampleResult | None) -> dict[str, float]:
    """The accuracy after each attack; square's is estimated for all images if it attacked a sample."""
    found = {name: float(state[name].flags.mean()) for name in attacks}
    if sample is not None and sample.sampled.any():
        del found[SAMPLED["square"]]
        fallen = (sample.after["fab-t"] & ~sample.after["square"]).sum()
        of_all = fallen * sample.before.sum() / sample.sampled.sum()
        found["square"] = found[SAMPLED["fab-t"]] - float(of_all) / len(sample.before)
    return found


def _attack_bounded(
    task: AttackTask[Plan], protocol: Plan
) -> tuple[Plan, EvaluationState, SampleResult | None, tuple[str, ...]]:
    on_all = [name for name in protocol.attacks if name in AUTOATTACK]
    start = _run_suite(task, dataclasses.replace(protocol, attacks=on_all))
    before = start[on_all[-1]].flags
    assert protocol.tolerance is not None
    loop, standard = AttackLoop.of(task), protocol.standard
    attacks = attacks_of(task, standard)
    with torch.no_grad(), frozen_eval(task.classifier):
        sample, enough = attack_sample(
            loop,
            attacks,
            before,
            width=math.floor(protocol.tolerance * len(task.labels) / 100 + 1e-9),
            seed=protocol.seed,
            num_classes=task.num_classes,
        )
    if enough:
        return protocol, start | {name: loop.state[name] for name in SAMPLED.values()}, sample, ()
    state = _run_suite(task, standard, start=start, sample=sample)
    found = {name: int(loop.state[name].nonfinite.sum()) for name in SAMPLED.values()}
    return standard, state, None, tuple(checks.nonfinite_warnings(found))


def attacks_of(task: AttackTask[Plan], protocol: Plan) -> dict[str, Perturb]:
    """The attacks of ``protocol``, which search on the network of ``task``."""
    return {name: protocol.make(name, task.searched, task.num_classes, task.device) for name in protocol.attacks}


def _run_suite(
    task: AttackTask[Plan],
    protocol: Plan,
    *,
    start: EvaluationState | None = None,
    sample: SampleResult | None = None,
) -> EvaluationState:
    loop = AttackLoop.of(task, start)
    state = run_attacks(
        loop, attacks_of(task, protocol), num_classes=task.num_classes, top_five=task.num_classes > 5, sample=sample
    )
    for name, seconds in (sample.seconds if sample else {}).items():
        state[name] = dataclasses.replace(state[name], seconds=np.append(state[name].seconds, seconds))
    return state


@torch.no_grad()
def run_attacks(
    loop: AttackLoop,
    attacks: Mapping[str, Perturb],
    *,
    num_classes: int = 10,
    top_five: bool = False,
    sample: SampleResult | None = None,
) -> EvaluationState:
    """Evaluate the images of ``loop`` clean and under each attack, but for what its state has as done.

    Returns one entry for ``clean``, one per attack and, with ``top_five``, ``top5``: whether the label is among the
    five most likely classes of the clean image. All processes of a group call this with the same arguments and get the
    same result. A batch's seconds are those of the process that computed it, so their sum is the time that one process
    would need, not the elapsed time. ``sample`` is what an earlier evaluation found by attacking some of the images,
    which is not done again.
    """
    clean: dict[str, IsCorrect] = {"clean": top1, "top5": top5} if top_five else {"clean": top1}
    size = loop.batch_size
    with frozen_eval(loop.task.classifier):
        correct = loop.attack(clean, UNCHANGED, np.ones(len(loop.task.labels), dtype=np.bool_), 1)
        for name, perturb in attacks.items():
            passes = known_attack(name).cost(num_classes).forward + 1  # one more to classify the adversarial images
            attack, batches = arranged(perturb, correct, size), cut(correct, size)
            if sample is not None and (tested := sample.tested(name, correct, size)).any():
                # Cut as without the sample, so that the others are attacked in their places.
                batches = tuple(batch[~tested[batch.numpy()]] for batch in batches)
                correct = correct & (~tested | sample.after[name])
            correct = loop.attack({name: top1}, attack, correct, passes, batches=batches)
    return {name: loop.state[name] for name in (*clean, *attacks)}
