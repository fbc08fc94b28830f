"""Class-wise mean predictions, the global information of IKL and GKL."""

import torch
from torch import Tensor, nn


class ClassPrior(nn.Module):
    """Mean softmax prediction of each true class over the last epoch; ``prior[target]`` gives weights ``(B, C)``.

    Rows start uniform at 1/C and change only at ``end_epoch``. A class that no sample of the epoch showed keeps its
    row (the official code turns it, and with it every sample, into NaN). ``prior_momentum`` m blends m·new + (1 − m)·old.

    Source: ``train_dkl_cifar100.py`` of the official code, where it is lost on resume; here it is in the state_dict.
    """

    table: Tensor
    sums: Tensor

    def __init__(self, num_classes: int, prior_momentum: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if not 0 < prior_momentum <= 1:
            raise ValueError(f"prior_momentum must lie in (0, 1], not {prior_momentum}")
        self.prior_momentum = prior_momentum
        self.register_buffer("table", torch.full((num_classes, num_classes), 1 / num_classes, dtype=dtype))
        self.register_buffer("sums", torch.zeros(num_classes, num_classes, dtype=dtype))

    def __getitem__(self, target: Tensor) -> Tensor:
        """Weights ``[B, C]`` for labels ``target[B]``."""
        return self.table[target]

    @torch.no_grad()
    def accumulate(self, probabilities: Tensor, target: Tensor) -> None:
        """Add the predictions ``probabilities[B, C]`` of samples labelled ``target[B]`` to this epoch's sums."""
        self.sums.index_add_(0, target, probabilities.detach().to(self.sums.dtype))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Put this epoch's means into use and start the next epoch's sums at zero."""
        count = self.sums.sum(dim=1, keepdim=True)  # predictions sum to 1, so this counts the class's samples
        means = self.sums / count.clamp(min=torch.finfo(self.sums.dtype).tiny)
        blended = self.prior_momentum * means + (1 - self.prior_momentum) * self.table
        self.table.copy_(torch.where(count > 0, blended, self.table))
        self.sums.zero_()

    def extra_repr(self) -> str:
        return f"num_classes={self.table.shape[0]}, prior_momentum={self.prior_momentum}"
