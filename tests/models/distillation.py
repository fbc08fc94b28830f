"""What the tests of distillation's networks share."""

import torch
from torch import Tensor, nn

from tests.models.common import with_statistics


def lively(model: nn.Module, images: Tensor) -> nn.Module:
    """``model`` in float64 and eval mode with random BatchNorm parameters, the statistics those of ``images``.

    So activations neither die nor explode with depth, and each layer shows in the logits.
    """
    with_statistics(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(images)
    return model.eval()
