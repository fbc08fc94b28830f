"""Helpers for the tests of networks."""

import torch
from torch import Tensor, nn


def count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def with_statistics(model: nn.Module) -> nn.Module:
    """``model`` in float64 and eval mode with random BatchNorm parameters, so that each of them shows in the output."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, 0, 0.3)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.double().eval()


def with_fitted_statistics(model: nn.Module, images: Tensor) -> nn.Module:
    """As ``with_statistics``, but with the BatchNorm statistics of ``images``.

    Activations then neither vanish nor explode with depth, and each layer shows in the logits.
    """
    with_statistics(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model(images)
    return model.eval()
