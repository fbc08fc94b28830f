"""The losses as the equations and the official code write them, over B×C×C pairwise gaps. Nothing of ``dkl`` is used.

Slow and memory-hungry by design: these are what the closed forms are compared with, and what the benchmark times.
All of them compute in the dtype of their inputs. Source of the loss lines: ``train_dkl_cifar100.py`` (IKL) and its
``DKLv2`` successor (GKL) at jiequancui/DKL c5e8ad2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_weights(weights: Tensor) -> Tensor:
    """Outer product of each row of ``weights[B, C]`` with itself: ``[B, C, C]``."""
    return torch.bmm(weights.unsqueeze(2), weights.unsqueeze(1))


def pairwise_gaps(logits: Tensor) -> Tensor:
    """``logits_j − logits_k`` of ``logits[B, C]`` for all pairs: ``[B, C, C]``."""
    return logits.unsqueeze(2) - logits.unsqueeze(1)


def pairwise_gap_mse(natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor) -> Tensor:
    """¼ Σ_j Σ_k w_j w_k (Δm_jk − Δn_jk)² of each sample: ``[B]``."""
    gaps = pairwise_gaps(natural_logits) - pairwise_gaps(adversarial_logits)
    return 0.25 * (gaps.pow(2) * pair_weights(weights)).sum((1, 2))


def soft_label_ce(natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """−Σ softmax(m) log softmax(n) of each sample, no gradient to m: ``[B]``."""
    return -(F.softmax(natural_logits, dim=1).detach() * F.log_softmax(adversarial_logits, dim=1)).sum(1)


def textbook_kl(natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
    """Mean over the batch of Σ p (log p − log q), gradient through both."""
    log_p, log_q = F.log_softmax(natural_logits, dim=1), F.log_softmax(adversarial_logits, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def pairwise_dkl(
    natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor, wmse_weight: float, ce_weight: float
) -> Tensor:
    """DKL: the wMSE reaches the natural logits only."""
    wmse = pairwise_gap_mse(natural_logits, adversarial_logits.detach(), weights)
    return (wmse_weight * wmse + ce_weight * soft_label_ce(natural_logits, adversarial_logits)).mean()


def pairwise_ikl(
    natural_logits: Tensor, adversarial_logits: Tensor, weights: Tensor, wmse_weight: float, ce_weight: float
) -> Tensor:
    """IKL, as the official CIFAR code computes it: the wMSE reaches both logits."""
    delta_n = natural_logits.view(-1, natural_logits.shape[1], 1) - natural_logits.view(-1, 1, natural_logits.shape[1])
    delta_a = adversarial_logits.view(-1, adversarial_logits.shape[1], 1) - adversarial_logits.view(
        -1, 1, adversarial_logits.shape[1]
    )
    loss_mse = 0.25 * (torch.pow(delta_n - delta_a, 2) * pair_weights(weights)).sum() / natural_logits.size(0)
    loss_sce = soft_label_ce(natural_logits, adversarial_logits).mean()
    return wmse_weight * loss_mse + ce_weight * loss_sce


def pairwise_gkl(
    natural_logits: Tensor,
    adversarial_logits: Tensor,
    weights: Tensor,
    wmse_weight: float,
    ce_weight: float,
    gamma: float,
) -> Tensor:
    """As the official v2 code: weights to the power gamma, the sum over pairs divided by the batch's pair weights."""
    pairs = pair_weights(weights.pow(gamma))
    gaps = pairwise_gaps(natural_logits) - pairwise_gaps(adversarial_logits)
    loss_mse = 0.25 * (gaps.pow(2) * pairs).sum() / pairs.sum()
    return wmse_weight * loss_mse + ce_weight * soft_label_ce(natural_logits, adversarial_logits).mean()
