"""What one training step computes. The loop knows only ``Task``; state that training changes lives here."""

from dkl.tasks.adversarial import AdversarialTraining
from dkl.tasks.awp import AWP
from dkl.tasks.base import Output, Progress, Task
from dkl.tasks.classification import Classification
from dkl.tasks.distillation import Distillation
from dkl.tasks.features import FeatureDistillation
from dkl.tasks.lbgat import LBGAT
from dkl.tasks.mart import MART
from dkl.tasks.pgd_at import PGDTraining

__all__ = [
    "AWP",
    "LBGAT",
    "MART",
    "AdversarialTraining",
    "Classification",
    "Distillation",
    "FeatureDistillation",
    "Output",
    "PGDTraining",
    "Progress",
    "Task",
]
