"""Evaluates the weights of a run or a foreign checkpoint and writes a record; can be resumed.

``run`` is the entry. ``job`` prepares an evaluation from its configuration: the ``subject`` (what is evaluated), its
``weights`` and the ``protocol`` (how it is evaluated). ``robustness`` finds the images that are classified correctly,
clean and under attack, and ``outputs`` writes the record, the logger report and the data of figures. ``autoattack``
attacks any callable on tensors in the same way, without a configuration.
"""

from dkl.evaluation.job import preflight
from dkl.evaluation.outputs.pictures import collect_pictures
from dkl.evaluation.run import evaluate
from dkl.evaluation.tensors import AutoAttackResult, autoattack

__all__ = ["AutoAttackResult", "autoattack", "collect_pictures", "evaluate", "preflight"]
