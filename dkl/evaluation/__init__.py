"""Evaluates the weights of a run or a foreign checkpoint and writes a record; can be resumed.

``run`` is the entry. ``job`` prepares an evaluation from its configuration: the ``subject`` (what is evaluated) and the
``protocol`` (how). ``dkl.attacks.autoattack`` finds the images that are classified correctly, clean and under attack,
and ``segmentation`` the pixels; ``make_record``, ``logger_report`` and ``pictures`` are what is left of it.
``verification`` does a part of it again, and ``autoattack`` attacks any callable on tensors without a configuration.
"""

import dkl.full
from dkl.evaluation.job import preflight
from dkl.evaluation.pictures import collect_pictures
from dkl.evaluation.run import evaluate
from dkl.evaluation.tensors import AutoAttackResult, autoattack

__all__ = ["AutoAttackResult", "autoattack", "collect_pictures", "evaluate", "preflight"]
