"""Adversarial training by other losses: PGD-AT, MART and LBGAT, the baselines of the paper's tables."""

import math
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack, batch_statistics
from dkl.data import Batch
from dkl.losses import KL
from dkl.tasks.adversarial import AWP, AdversarialTraining, make_output
from dkl.tasks.base import Output
from dkl.validation import FRACTION, SEED, WEIGHT, check_arguments

TINY = 1e-12  # of the official MART


class PGDTraining(AdversarialTraining):
    """PGD adversarial training (Madry et al. 2018): cross-entropy of ``model`` on images that ``attack`` makes.

        loss = CE(adversarial logits, y)

    There is one forward in train mode, so BatchNorm sees adversarial images only. ``task=pgd_at`` sets
    ``attack.objective=null`` (the attack raises the cross-entropy) and ``attack.sigma=null`` (it starts uniformly in
    the ball). With ``awp`` this is AT-AWP (Wu et al. 2020).

    ``label_smoothing`` in [0, 1) is spread over all classes. All views of an image have the same weight. ``seed`` fixes
    the attack's noise. Raises UserError if there is no attack, or if a setting is out of range.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | partial[Tensor] | None,
        *,
        awp: AWP | None = None,
        label_smoothing: Annotated[float, FRACTION] = 0.0,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        self.label_smoothing = label_smoothing

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        adversarial = self.model(adversarial_images)
        loss = F.cross_entropy(adversarial, batch.labels, label_smoothing=self.label_smoothing)
        return make_output(loss, batch, adversarial_images, adversarial=adversarial)


def _rest(probabilities: Tensor, index: Tensor) -> Tensor:
    """1 − p at ``index[B]`` of ``probabilities[B, C]``, computed as the sum of all other classes."""
    return probabilities.scatter(-1, index.unsqueeze(-1), 0.0).sum(-1)


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of −log q_y − log(1.0001 − q_k + 1e-12) over ``logits[B, C]``; k is the most probable wrong class."""
    # argmax has no gradient: it flows through the probability of the rival, not through the choice of it.
    rival = logits.detach().scatter(-1, labels.unsqueeze(-1), -math.inf).argmax(-1)
    return F.cross_entropy(logits, labels) - (_rest(logits.softmax(-1), rival) + 1e-4 + TINY).log().mean()


def mart_loss(natural: Tensor, adversarial: Tensor, labels: Tensor, *, beta: float = 6.0) -> Tensor:
    """MART's loss of both logits ``[B, C]`` (Wang et al. 2020), a scalar in at least float32.

    With p = softmax(natural logits), q = softmax(adversarial logits) and k the likeliest class of q other than y:

        loss = mean_i [ −log q_y − log(1.0001 − q_k + 1e-12) ]
             + beta · mean_i [ KL(p ‖ q + 1e-12) · (1.0000001 − p_y) ]

    The constants are those of the official code. 1 − q_k and 1 − p_y are computed as sums of the other probabilities,
    which avoids cancellation. The gradient passes through both logits and through the weight 1 − p_y.
    """
    dtype = torch.promote_types(torch.promote_types(natural.dtype, adversarial.dtype), torch.float32)
    natural, adversarial = natural.to(dtype), adversarial.to(dtype)
    p, log_p, log_q = natural.softmax(-1), natural.log_softmax(-1), (adversarial.softmax(-1) + TINY).log()
    divergence = (p * (log_p - log_q)).sum(-1)
    robust = (divergence * (_rest(p, labels) + 1e-7)).mean()
    return boosted_cross_entropy(adversarial, labels) + beta * robust


class MART(AdversarialTraining):
    """MART of ``model`` on images that ``attack`` makes: a boosted cross-entropy, and a KL weighted by uncertainty.

    ``beta`` weights the KL (lambda in the paper).
    Natural images are forwarded before the adversarial ones. All views of an image have the same weight. ``seed`` fixes
    the attack's noise. Raises UserError if there is no attack, or if ``beta`` is out of range.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | partial[Tensor] | None,
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


class LBGAT(AdversarialTraining):
    """LBGAT (Cui et al. 2021): a natural network, trained at the same time, guides the robust one.

        loss = MSE(adversarial logits, guide's natural logits) + CE(guide's natural logits, y)
             + beta · KL(softmax(natural logits) ‖ softmax(adversarial logits))

    The MSE is the mean over all entries, and its gradient reaches both networks. Only the robust network ``model`` is
    attacked. ``beta`` is officially 0 or 6.

    ``guide`` takes the device and dtype of ``model``, stays in train mode and is trained by the same optimizer. Its
    parameters' names start with ``guide.``; its weights and buffers belong to the task's state. Natural images are
    forwarded through ``model`` at ``beta=0`` too, because BatchNorm sees them in the official code. All views of an
    image have the same weight. ``awp`` perturbs only ``model``.

    On several processes the guide's running statistics of BatchNorm are not synchronized, and the first process's are
    saved. Training never reads them. Raises UserError if there is no attack, or if ``beta`` is out of range.
    """

    kept = ("prior", "guide")

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        attack: TrainingAttack | partial[Tensor] | None,
        *,
        beta: Annotated[float, WEIGHT] = 6.0,
        awp: AWP | None = None,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        parameter = next(model.parameters())
        self.guide = guide.to(parameter.device, parameter.dtype).train()
        self.kl = KL(weight=beta)

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        adversarial = self.model(adversarial_images)
        natural = self.model(batch.images)
        guide = self.guide(batch.images)
        loss = F.mse_loss(adversarial, guide) + F.cross_entropy(guide, batch.labels) + self.kl(natural, adversarial)
        return make_output(loss, batch, adversarial_images, natural=natural, adversarial=adversarial, guide=guide)

    def ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        """The terms with the robust network, which AWP raises; the guide is constant, its BatchNorm buffers too."""
        adversarial, natural = self.model(adversarial_images), self.model(batch.images)
        with torch.no_grad(), batch_statistics(self.guide):
            guide = self.guide(batch.images)
        return F.mse_loss(adversarial, guide) + self.kl(natural, adversarial)
