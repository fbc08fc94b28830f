"""IKL per pixel against torch's KL divergence, at the size of Table 17: 473×473 pixels, 150 classes, batch 2.

Gradients go to the student only, as in distillation. Both are averaged over pixels and classes, as in APD. The pairwise
form cannot be run at this size; its memory is computed.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses import IKL
from dkl.tasks.segmentation_distillation import pixel_loss
from scripts.bench.report import Result, Table, Target
from scripts.bench.timing import Call, alternate, peak_bytes

B, C, SIDE, IGNORE = 2, 150, 473, 255

_ikl = IKL(wmse_weight=1.0, ce_weight=1.0, weighting="sample")


def kl_div(teacher: Tensor, student: Tensor, masks: Tensor) -> Tensor:
    """APD's KL: ``nn.KLDivLoss()`` of the two softmaxes. It counts all pixels."""
    return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum") / student.numel()


def ikl(teacher: Tensor, student: Tensor, masks: Tensor) -> Tensor:
    """The package's IKL per pixel, without the pixels to be ignored."""
    return pixel_loss(_ikl, teacher, student, masks, ignore_index=IGNORE) / C


def _call(loss: Callable[[Tensor, Tensor, Tensor], Tensor], teacher: Tensor, student: Tensor, masks: Tensor) -> Call:
    return lambda: torch.autograd.grad(loss(teacher, student, masks), student)


def run(rounds: int) -> Result:
    """Time and memory of both losses, with channels first and last in memory."""
    print(f"   {B}×{C}×{SIDE}×{SIDE}", flush=True)
    masks = torch.randint(C, (B, SIDE, SIDE))
    masks[:, :20] = IGNORE
    layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
    rows, targets, samples = [], [], {}
    for layout, memory_format in layouts.items():
        teacher, student = (3 * torch.randn(B, C, SIDE, SIDE).to(memory_format=memory_format) for _ in range(2))
        student.requires_grad_()
        calls = {"ikl": _call(ikl, teacher, student, masks), "kl_div": _call(kl_div, teacher, student, masks)}
        times = alternate(calls, rounds)
        peaks = {name: peak_bytes(call) for name, call in calls.items()}
        for name in calls:
            size = peaks[name] / (4 * B * C * SIDE**2)
            rows.append(
                [f"{name}, {layout}", 1e3 * times[name].median, 1e3 * times[name].minimum, peaks[name] / 1e6, size]
            )
            samples[f"{name}, {layout}"] = times[name].samples
        ratio = times["ikl"].median / times["kl_div"].median
        targets.append(Target(f"ikl / kl_div, time, {layout}", ratio, 1.3, at_least=False))
        targets.append(
            Target(f"ikl / kl_div, peak memory, {layout}", peaks["ikl"] / peaks["kl_div"], 1.2, at_least=False)
        )
    columns = ["loss", "median ms", "minimum ms", "peak MB", "in B·C·H·W floats"]
    table = Table(f"Forward and backward at {B}×{C}×{SIDE}×{SIDE}, float32, student only", columns, rows)
    notes = [
        f"The pairwise form was not run: one tensor of gaps is {4e-9 * SIDE**2 * C**2:.0f} GB per image, computed as "
        f"4 bytes · {SIDE}² pixels · {C}² pairs.",
        "Peak memory is beyond the inputs, and includes the student's gradient.",
    ]
    return Result("pixels", "Losses per pixel: IKL against KL", rounds, [table], targets, notes, samples)
