"""MART (Wang et al. 2020): a boosted cross-entropy, and a KL weighted by the uncertainty of the natural prediction.

With p = softmax(natural logits), q = softmax(adversarial logits) and k the most probable class of q other than y:

    loss = mean_i [ −log q_y − log(1.0001 − q_k + 1e-12) ]
         + beta · mean_i [ KL(p ‖ q + 1e-12) · (1.0000001 − p_y) ]

The constants are those of the official code. 1 − q_k and 1 − p_y are computed as sums of the other probabilities, which
avoids cancellation. The gradient passes through both logits and through the weight 1 − p_y.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, make_output
from dkl.tasks.base import Output
from dkl.validation import SEED, WEIGHT, check_arguments

TINY = 1e-12


def _rest(probabilities: Tensor, index: Tensor) -> Tensor:
    """1 − p at ``index[B]`` of ``probabilities[B, C]``, computed as the sum of all other classes."""
    return probabilities.scatter(-1, index.unsqueeze(-1), 0.0).sum(-1)


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of −log q_y − log(1.0001 − q_k + 1e-12) over ``logits[B, C]``; k is the most probable wrong class."""
    # argmax has no gradient: it flows through the probability of the rival, not through the choice of it.
    rival = logits.detach().scatter(-1, labels.unsqueeze(-1), -math.inf).argmax(-1)
    return F.cross_entropy(logits, labels) - (_rest(logits.softmax(-1), rival) + 1e-4 + TINY).log().mean()


def mart_loss(natural: Tensor, adversarial: Tensor, labels: Tensor, *, beta: float = 6.0) -> Tensor:
    """MART's loss of both logits ``[B, C]`` (equation: see the module), a scalar in at least float32."""
    dtype = torch.promote_types(torch.promote_types(natural.dtype, adversarial.dtype), torch.float32)
    natural, adversarial = natural.to(dtype), adversarial.to(dtype)
    p, log_p, log_q = natural.softmax(-1), natural.log_softmax(-1), (adversarial.softmax(-1) + TINY).log()
    divergence = (p * (log_p - log_q)).sum(-1)
    robust = (divergence * (_rest(p, labels) + 1e-7)).mean()
    return boosted_cross_entropy(adversarial, labels) + beta * robust


class MART(AdversarialTraining):
    """MART of ``model`` on images that ``attack`` makes; ``beta`` weights the KL (lambda in the paper).

    Natural images are forwarded before the adversarial ones. All views of an image have the same weight. ``seed`` fixes
    the attack's noise. Raises UserError if there is no attack, or if ``beta`` is out of range.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        *,
        beta: Annotated[float, WEIGHT] = 6.0,
        awp: AWP | None = None,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        self.beta = beta

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        natural = self.model(batch.images)
        adversarial = self.model(adversarial_images)
        loss = mart_loss(natural, adversarial, batch.labels, beta=self.beta)
        return make_output(loss, batch, adversarial_images, natural=natural, adversarial=adversarial)
