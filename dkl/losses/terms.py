"""Gradient norms at the logits of a loss's two terms: the weighted MSE and the soft-label cross-entropy.

KL is split as DKL, which has the same gradients by the theorem of the paper.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from dkl.losses.base import PairLoss
from dkl.losses.divergences import DKL, GKL, IKL, KL


def split_terms(loss: PairLoss) -> dict[str, PairLoss]:
    """``loss`` without its cross-entropy as ``wmse``, and without its weighted MSE as ``ce``.

    Raises TypeError if it is not KL, DKL, IKL or GKL.
    """
    if isinstance(loss, KL):
        loss = DKL(wmse_weight=loss.weight, ce_weight=loss.weight)
    if not isinstance(loss, DKL | IKL | GKL):
        raise TypeError(f"{type(loss).__name__} has no terms to split: choose KL, DKL, IKL or GKL")
    return {"wmse": dataclasses.replace(loss, ce_weight=0.0), "ce": dataclasses.replace(loss, wmse_weight=0.0)}


def gradient_norms(
    loss: PairLoss, natural_logits: Tensor, adversarial_logits: Tensor, **arguments: Any
) -> dict[str, Tensor]:
    """The norm ``[B]`` of each term's gradient for every sample, by the names of ``split_terms``.

    It is the L2 norm over both logits ``[B, C]`` of the gradient of the sample's own loss, so that it does not depend
    on the batch size. ``arguments`` are those of ``loss``. No graph of the logits is used or kept.
    """
    natural, adversarial = (x.detach().requires_grad_() for x in (natural_logits, adversarial_logits))
    norms = {}
    for name, term in split_terms(loss).items():
        with torch.enable_grad():
            mean = term(natural, adversarial, **arguments)
        gradients = torch.autograd.grad(mean, (natural, adversarial), allow_unused=True, materialize_grads=True)
        norms[name] = len(natural) * torch.cat(gradients, dim=-1).float().norm(dim=-1)
    return norms
