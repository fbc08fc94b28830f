"""Classifiers on images in [0, 1], registered with timm; and loading weights others saved."""

from dkl.models import (  # noqa: F401  (registers them)
    cifar_mobilenetv2,
    cifar_resnet,
    cifar_resnet18,
    cifar_shufflev1,
    cifar_shufflev2,
    cifar_vgg,
    cifar_wrn,
    mobilenetv1,
    preact_resnet,
    small_cnn,
    swish_wide_resnet,
    wide_resnet,
)
from dkl.models.create import create_model, normalise_input
from dkl.models.foreign import load_checkpoint
from dkl.models.teacher import create_teacher, fingerprint

__all__ = ["create_model", "create_teacher", "fingerprint", "load_checkpoint", "normalise_input"]
