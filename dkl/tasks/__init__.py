"""One training step per task. The loop knows only ``Task``, which owns all state that training changes."""

from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, make_output
from dkl.tasks.adversarial.lbgat import LBGAT
from dkl.tasks.adversarial.mart import MART
from dkl.tasks.adversarial.pgd_at import PGDTraining
from dkl.tasks.adversarial.trades import TradesTraining
from dkl.tasks.base import Output, Progress, Task
from dkl.tasks.checks import check_task
from dkl.tasks.classification import Classification
from dkl.tasks.distillation.feature_distillation import FeatureDistillation
from dkl.tasks.distillation.logits import Distillation
from dkl.tasks.segmentation import Segmentation, SegmentationDistillation
from dkl.tasks.semi_supervised.fixmatch import FixMatch
from dkl.tasks.semi_supervised.mean_teacher import MeanTeacher

__all__ = [
    "AWP",
    "LBGAT",
    "MART",
    "AdversarialTraining",
    "Classification",
    "Distillation",
    "FeatureDistillation",
    "FixMatch",
    "MeanTeacher",
    "Output",
    "PGDTraining",
    "Progress",
    "Segmentation",
    "SegmentationDistillation",
    "Task",
    "TradesTraining",
    "check_task",
    "make_output",
]
