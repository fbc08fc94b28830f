"""Clean, PGD and AutoAttack accuracy of any weights; resumable; a record out. And what pictures show of a model."""

from dkl.evaluation.outputs.pictures import collect as collect_pictures
from dkl.evaluation.run import evaluate

__all__ = ["collect_pictures", "evaluate"]
