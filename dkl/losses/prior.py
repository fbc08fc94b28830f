"""Class-wise mean predictions, the global information of IKL and GKL."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class ClassPrior(nn.Module):
    """Mean softmax prediction per true class over the last epoch; ``prior[target]`` gives weights ``[B, C]``.

    Rows start uniform at 1/C and change only at ``end_epoch``. A class without samples in the epoch keeps its row; in
    the official code it becomes NaN, and every sample with it. ``prior_momentum`` m blends m·new + (1 − m)·old.

    Source: ``train_dkl_cifar100.py`` of the official code, which loses the prior on resume; here the state_dict has it.
    """

    table: Tensor
    sums: Tensor

    def __init__(self, num_classes: int, prior_momentum: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} must be at least 1")
        if not 0 < prior_momentum <= 1:
            raise ValueError(f"prior_momentum={prior_momentum} must be in (0, 1]")
        self.prior_momentum = prior_momentum
        self.register_buffer("table", torch.full((num_classes, num_classes), 1 / num_classes, dtype=dtype))
        self.register_buffer("sums", torch.zeros(num_classes, num_classes, dtype=dtype))

    def __getitem__(self, target: Tensor) -> Tensor:
        """Weights ``[B, C]`` for labels ``target[B]``, int64 or int32; of a single label ``[C]``.

        Labels below 0 or from C on raise IndexError; on a GPU they are a failed assertion of the device.
        """
        return embedding(torch.as_tensor(target, device=self.table.device), self.table)

    @torch.no_grad()
    def observe(self, logits: Tensor, target: Tensor, prior_temperature: float) -> None:
        """Add the softmax of ``logits[B, C]`` / ``prior_temperature`` to the sums of their classes ``target[B]``."""
        self.accumulate((logits.detach().to(self.table.dtype) / prior_temperature).softmax(-1), target)

    @torch.no_grad()
    def accumulate(self, probabilities: Tensor, target: Tensor) -> None:
        """Add the predictions ``probabilities[B, C]`` to this epoch's sums of their classes ``target[B]``."""
        self.sums.index_add_(0, target, probabilities.detach().to(self.sums.dtype))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Replace the table by this epoch's means and reset the sums to zero."""
        # Predictions sum to 1, so the sum of a row counts the samples of its class.
        count = self.sums.sum(dim=1, keepdim=True)
        means = self.sums / count.clamp(min=torch.finfo(self.sums.dtype).tiny)
        blended = self.prior_momentum * means + (1 - self.prior_momentum) * self.table
        self.table.copy_(torch.where(count > 0, blended, self.table))
        self.sums.zero_()

    def extra_repr(self) -> str:
        return f"num_classes={self.table.shape[0]}, prior_momentum={self.prior_momentum}"
