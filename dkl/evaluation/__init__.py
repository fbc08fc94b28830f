"""Clean, PGD and AutoAttack accuracy of any weights; resumable; a record out."""

from dkl.evaluation.run import evaluate

__all__ = ["evaluate"]
