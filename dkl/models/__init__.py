"""Classifiers on images in [0, 1], registered with timm; and loading weights others saved."""

from dkl.models import distillation, robust  # noqa: F401  (importing them registers their networks)
from dkl.models.create import create_model, normalise_input
from dkl.models.foreign import load_checkpoint
from dkl.models.teacher import create_teacher, fingerprint

__all__ = ["create_model", "create_teacher", "fingerprint", "load_checkpoint", "normalise_input"]
