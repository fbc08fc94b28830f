"""One training step per task. The loop knows only ``Task``, which owns all state that training changes."""

import dkl.full
from dkl.tasks.adversarial import AWP, AdversarialTraining, TradesTraining, make_output
from dkl.tasks.adversarial_baselines import LBGAT, MART, PGDTraining
from dkl.tasks.base import Output, Progress, Task
from dkl.tasks.classification import Classification
from dkl.tasks.distillation.features import FeatureDistillation
from dkl.tasks.distillation.logits import Distillation
from dkl.tasks.robust_distillation import RobustDistillation, Term
from dkl.tasks.segmentation import Segmentation
from dkl.tasks.segmentation_distillation import SegmentationDistillation
from dkl.tasks.semi_supervised import FixMatch, MeanTeacher
