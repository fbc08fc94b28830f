"""Builds the evaluated network with its weights, and checks that a foreign one gives logits for the images."""

import torch
from torch import nn

from dkl.assembly import build_model
from dkl.errors import UserError
from dkl.evaluation.robustness.classifier import blamed, first_output
from dkl.evaluation.subject import Subject
from dkl.models import load_checkpoint


def load_network(subject: Subject) -> tuple[nn.Module, str]:
    """Build the network of ``subject`` in eval mode with its weights; also returns one line about the file.

    Raises UserError if the weights do not fit, or if a foreign network does not give logits for the data's images.
    """
    source, weights = subject.source, subject.weights
    if source is not None and source.holds_network:
        model = build_model({**subject.model, "path": str(weights.path), "trust": True})
        layout = f"{weights.path}: a network with its weights"
    elif source is not None and source.weights is None:
        model, layout = build_model(subject.model), f"{weights.path}: published weights"
    else:
        model = build_model(subject.model, subject.key)
        layout = load_checkpoint(model, weights.path, weights.key)
    model = model.float().eval()  # checkpoints may hold half or double precision; attacks run in float32
    if source is not None:
        _check_logits(model, subject)
    return model, layout


def _check_logits(model: nn.Module, subject: Subject) -> None:
    """Raise UserError unless ``model`` gives logits [2, C] for two images of the subject's data."""
    shape, classes = list(subject.data.shape), subject.data.num_classes
    with blamed(f"{subject.method} does not take images {shape} of {subject.data.name}", "; choose data of its size"):
        logits = first_output(model, torch.zeros(2, *shape), subject.method)
    got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != [2, classes] and subject.data.ignore_index is None:
        raise UserError(
            f"{subject.method} gives {got} for two images, not logits [2, {classes}]: {subject.data.name} has "
            f"{classes} classes; choose the data that it was trained on"
        )
