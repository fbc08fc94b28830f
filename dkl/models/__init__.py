"""Classifiers of images in [0, 1], and loading their weights.

``robust`` and ``distillation`` hold the networks of the paper's two kinds of tables, registered with timm.
``create_model`` builds any timm model with its input normalization; ``load_checkpoint`` loads weights that others
saved; ``create_teacher`` does both for a distillation teacher. ``features`` extracts the features of each stage.
"""

from dkl.models import distillation, robust  # noqa: F401  (importing them registers their networks)
from dkl.models.create import create_model, normalize_input
from dkl.models.features import Features, forward_with_features
from dkl.models.foreign_checkpoints import load_checkpoint
from dkl.models.teacher import create_teacher, fingerprint

__all__ = [
    "Features",
    "create_model",
    "create_teacher",
    "fingerprint",
    "forward_with_features",
    "load_checkpoint",
    "normalize_input",
]
