"""Accuracy on corrupted images: the same network and batches as on clean ones, resumable and shared by processes."""

import numpy as np
import torch

from dkl.attacks import frozen_eval
from dkl.data import CORRUPTIONS, SEVERITIES, Corruptions
from dkl.evaluation.attacking import AttackTask
from dkl.evaluation.robustness.attack_loop import AttackLoop, EvaluationState, load, merge
from dkl.records import Flags
from dkl.runtime.distributed import gather
from dkl.tasks.base import top1


@torch.no_grad()
def classify_corrupted(task: AttackTask, corruptions: Corruptions) -> EvaluationState:
    """Find the corrupted images that ``task.model`` classifies correctly; in all processes of the group.

    Returns one entry per corruption with flags ``[5 n]``, severity by severity. Raises UserError if a label is not one
    of the classes, or if there are fewer than ``n`` images.
    """
    protocol = task.protocol
    state = merge(gather(load(task.folder)))
    with frozen_eval(task.classifier):
        for name in CORRUPTIONS:
            found = corruptions.read(name, protocol.n)
            everything = np.ones(len(found), dtype=np.bool_)
            loop = AttackLoop(
                task.classifier, found.images, found.labels, protocol.batch_size, task.device, task.folder, state
            )
            loop.attack({name: top1}, lambda x, y, chosen: x, everything, 1)
            state = loop.state
    return {name: state[name] for name in CORRUPTIONS}


def by_severity(state: EvaluationState) -> Flags:
    """The flags of each corruption, bool ``[5, n]``."""
    return {name: progress.flags.reshape(SEVERITIES, -1) for name, progress in state.items()}
