"""LBGAT (Cui et al. 2021): a natural network, trained at the same time, guides the robust one.

    loss = MSE(adversarial logits, guide's natural logits) + CE(guide's natural logits, y)
         + beta · KL(softmax(natural logits) ‖ softmax(adversarial logits))

The MSE is the mean over all entries, and its gradient reaches both networks. Only the robust network is attacked.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack, batch_statistics
from dkl.data import Batch
from dkl.losses import KL
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, make_output
from dkl.tasks.base import Output
from dkl.validation import SEED, WEIGHT, check_arguments


class LBGAT(AdversarialTraining):
    """LBGAT of ``model`` with the natural network ``guide``; ``beta`` (officially 0 or 6) weights the KL.

    ``guide`` takes the device and dtype of ``model``, stays in train mode and is trained by the same optimizer. Its
    parameters' names start with ``guide.``; its weights and buffers belong to the task's state. Natural images are
    forwarded through ``model`` at ``beta=0`` too, because BatchNorm sees them in the official code. All views of an
    image have the same weight. ``awp`` perturbs only ``model``.

    On several processes the guide's running statistics of BatchNorm are not synchronized, and the first process's are
    saved. Training never reads them. Raises UserError if there is no attack, or if ``beta`` is out of range.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        attack: TrainingAttack | None,
        *,
        beta: Annotated[float, WEIGHT] = 6.0,
        awp: AWP | None = None,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        parameter = next(model.parameters())
        self.guide = guide.to(parameter.device, parameter.dtype).train()
        self.kl = KL(weight=beta)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of both networks."""
        return chain(self.model.named_parameters(), self.guide.named_parameters(prefix="guide"))

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

    def state_dict(self) -> dict[str, Any]:
        """The task's state with the guide."""
        return super().state_dict() | {"guide": self.guide.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.guide.load_state_dict(state["guide"])
