"""Plain PyTorch for the tests of the baselines: an attack, AWP and a step of SGD. Nothing of ``dkl`` is used."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

EPS, STEPS, STEP_SIZE = 0.05, 3, 0.025
LR, DECAY = 0.1, 1e-3


def attacked(model: nn.Module, images: Tensor, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The images after ``STEPS`` signed steps that raise ``loss`` of the logits of ``model`` in eval mode."""
    frozen, x = copy.deepcopy(model).eval(), start.clone()
    for _ in range(STEPS):
        x.requires_grad_(True)
        loss(frozen(x)).backward()
        moved = x.detach() + STEP_SIZE * torch.sign(x.grad)
        x = torch.min(torch.max(moved, images - EPS), images + EPS).clamp(0, 1)
    return x


def ascended(model: nn.Module, loss: Callable[[nn.Module], Tensor], gamma: float) -> list[Tensor]:
    """AWP's change of every parameter of ``model`` at ``loss`` of a copy."""
    other = copy.deepcopy(model)
    loss(other).backward()
    changes = []
    for name, w in other.named_parameters():
        matrix = w.dim() > 1 and name.endswith("weight")
        size = gamma * float(w.detach().pow(2).sum()) ** 0.5 / float(w.grad.pow(2).sum()) ** 0.5 if matrix else 0.0
        changes.append(size * w.grad)
    return changes


def descended(networks: list[nn.Module], loss: Callable[..., Tensor], changes: list[Tensor]) -> list[Tensor]:
    """Parameters of ``networks`` after a step of decayed SGD at those of the first network moved by ``changes``."""
    others = copy.deepcopy(networks)
    with torch.no_grad():
        for w, change in zip(others[0].parameters(), changes, strict=False):
            w += change
    loss(*others).backward()
    stepped = [w - LR * (w.grad + DECAY * w) for other in others for w in other.parameters()]
    return [w - v for w, v in zip(stepped, [*changes, *[torch.zeros(())] * len(stepped)], strict=False)]
