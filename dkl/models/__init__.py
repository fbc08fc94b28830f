"""Classifiers on images in [0, 1], registered with timm; and loading weights others saved."""

from dkl.models import preact_resnet, small_cnn, wide_resnet  # noqa: F401  (importing registers them with timm)
from dkl.models.create import create_model, normalise_input
from dkl.models.foreign import load_checkpoint

__all__ = ["create_model", "load_checkpoint", "normalise_input"]
