"""Models for the attack tests."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def summed_ce(labels: Tensor) -> nn.Module:
    """The summed cross-entropy with ``labels`` as an objective on logits."""

    class Objective(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, labels, reduction="sum")

    return Objective()


def batchnorm_net() -> nn.Sequential:
    """Everything a mode changes: BatchNorm and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.Softplus(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 64, 4),
    )


def smooth_net() -> nn.Sequential:
    """A small convolutional network without kinks, in eval mode."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Conv2d(8, 8, 3, stride=2), nn.Tanh(), nn.Flatten(),
        nn.Linear(8 * 9, 5),
    ).eval()  # fmt: skip


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that an attack could leave behind: weights, buffers, gradients, modes, flags, BatchNorm's settings."""
    found: dict[str, object] = {f"state {key}": value.clone() for key, value in model.state_dict().items()}
    for name, module in model.named_modules():
        found[f"mode {name}"] = module.training
        if isinstance(module, _NormBase):
            found[f"tracking {name}"], found[f"momentum {name}"] = module.track_running_stats, module.momentum
    for name, parameter in model.named_parameters():
        found[f"flag {name}"] = parameter.requires_grad
        found[f"grad {name}"] = None if parameter.grad is None else parameter.grad.clone()
    return found


def assert_same(after: dict[str, object], before: dict[str, object]) -> None:
    assert after.keys() == before.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, f"{key} changed"


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    assert_same(snapshot(model), before)
