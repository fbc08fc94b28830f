"""Networks for images in [0, 1], and loading their weights.

``networks`` holds those of the paper's tables, registered with timm. ``create_model`` builds any timm model with its
input normalization; ``load_checkpoint`` loads weights that others saved; ``create_teacher`` does both for a
distillation teacher. ``features`` extracts what networks compute on the way to their logits.
"""

from dkl.models import networks  # registers them
from dkl.models.create import create_model, normalize_input
from dkl.models.features import DenseOutput, Features, forward_dense, forward_with_features
from dkl.models.foreign_checkpoints import check_initial_weights, load_checkpoint, load_encoder, load_initial_weights
from dkl.models.teacher import create_teacher, fingerprint

__all__ = [
    "DenseOutput",
    "Features",
    "check_initial_weights",
    "create_model",
    "create_teacher",
    "fingerprint",
    "forward_dense",
    "forward_with_features",
    "load_checkpoint",
    "load_encoder",
    "load_initial_weights",
    "normalize_input",
]
