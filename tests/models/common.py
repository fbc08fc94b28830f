"""What the tests of architectures share."""

from torch import nn


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def with_statistics(model: nn.Module) -> nn.Module:
    """Random BatchNorm statistics and scales, so that none of them can be left out unseen; float64, eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, 0, 0.3)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.double().eval()
