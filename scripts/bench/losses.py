"""IKL forward and backward, against the pairwise form of the official code and against torch's KL divergence.

Timed with gradients to both logits, as in IKL-AT and TRADES, and to the adversarial (student) logits only, as in
distillation. Both are also timed compiled, on a GPU if there is one. IKL-KD with the official CIFAR-100 settings is
compared with Hinton's KD. Errors of float32 are measured against the pairwise form in float64.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.losses import ABKD, DIST, DKD, IKL, KD, TTM, WKD, WTTM, NormKD, PairLoss, wanted_arguments
from dkl.runtime.device import accelerator, describe
from scripts.bench.report import Result, Row, Table, Target
from scripts.bench.timing import Call, Timing, alternate, peak_bytes
from tests.official.oracles import pairwise_ikl

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = ((128, 10), (128, 100), (512, 1000), (32, 21841))
MOST_PAIRS = 512 * 1000**2  # 12 GB in the pairwise form; at 32×21841 it would need 30 times that

_ikl = IKL(wmse_weight=20.0, ce_weight=5.0)
kd = KD(weight=0.9, logit_temperature=4.0)
ikl_kd = IKL(wmse_weight=8.0, ce_weight=1.0, ce_temperature=4.0, sample_temperature=100.0, weighting="sample")
pairwise: Loss = partial(pairwise_ikl, wmse_weight=20.0, ce_weight=5.0)

DISTILLING: dict[str, PairLoss] = {
    "kd": kd,
    "ikl-kd": ikl_kd,
    "kd + ls": KD(weight=9.0, logit_temperature=2.0, standardize=True),
    "dkd": DKD(),
    "dkd + ls": DKD(alpha=9.0, beta=72.0, logit_temperature=2.0, standardize=True),
    "dist": DIST(),
    "ttm": TTM(),
    "wttm": WTTM(),
    "wkd-l": WKD(),
    "abkd": ABKD(),
    "normkd": NormKD(),
}
"""Losses between teacher and student, at their CIFAR-100 settings."""

VARIANTS = ("pairwise", "ikl", "kl_div", "ikl, student only", "kl_div, student only", "ikl-kd", "kd")
RATIOS = ["pairwise / ikl", "ikl / kl_div", "student only", "ikl-kd / kd"]
COLUMNS = ["B×C", *(f"{name} ms" for name in VARIANTS), *RATIOS]
PARTS = ("value", "natural gradient", "adversarial gradient")

# Name -> offsets of the natural and the adversarial logits, scale of both, and their distance (None: random).
CASES = {
    "plain": (0.0, 0.0, 1.0, None),
    "both + 1e4": (1e4, 1e4, 1.0, None),
    "natural + 1e4": (1e4, 0.0, 1.0, None),
    "adversarial + 1e4": (0.0, 1e4, 1.0, None),
    "× 100": (0.0, 0.0, 100.0, None),
    "1e-3 apart": (0.0, 0.0, 1.0, 1e-3),
}


def ikl(natural: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """The package's IKL."""
    return _ikl(natural, adversarial, weights=weights)


def kl(natural: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """torch's KL divergence with gradients to both sides, as in TRADES. It ignores the weights."""
    log_p, log_q = F.log_softmax(natural, 1), F.log_softmax(adversarial, 1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def compiled(rounds: int) -> tuple[Table, list[Target]]:
    """IKL against torch's KL divergence, both compiled, with gradients to both logits."""
    device = accelerator() or torch.device("cpu")
    finish = int if device.type == "cpu" else torch.accelerator.synchronize
    rows: list[Row] = []
    targets = []
    for B, C in SHAPES:
        torch.compiler.reset()
        print(f"   compiling for {B}×{C}", flush=True)
        data = [tensor.to(device) for tensor in inputs(B, C)]
        losses = {"ikl": ikl, "kl_div": kl}
        calls = {
            name: call(torch.compile(loss, fullgraph=True), *data, both=True, finish=finish)
            for name, loss in losses.items()
        }
        timings = alternate(calls, rounds)
        for what in ("median", "minimum"):
            times = [1e3 * getattr(timings[name], what) for name in losses]
            rows.append([f"{B}×{C} {what}", *times, times[0] / times[1]])
        ratio = _over(timings, "ikl", "kl_div") or 0.0
        targets.append(Target(f"ikl / kl_div, both compiled, time at {B}×{C}", ratio, 1.0, at_least=False))
    title = f"Compiled, forward and backward, float32, milliseconds, on {describe(device)}"
    return Table(title, ["B×C", "ikl ms", "kl_div ms", "ikl / kl_div"], rows), targets


def inputs(rows: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Natural and adversarial logits, and weights whose rows sum to 1: ``[B, C]`` each."""
    return 3 * torch.randn(rows, classes), 3 * torch.randn(rows, classes), torch.randn(rows, classes).softmax(1)


def call(
    loss: Loss,
    natural: Tensor,
    adversarial: Tensor,
    weights: Tensor,
    *,
    both: bool,
    finish: Callable[[], object] = int,
) -> Call:
    """A function that computes ``loss`` and its gradients: to both logits, or only to the adversarial ones.

    ``finish`` waits for a GPU.
    """
    natural, adversarial = natural.clone().requires_grad_(both), adversarial.clone().requires_grad_()
    wanted = (natural, adversarial) if both else (adversarial,)
    return lambda: (torch.autograd.grad(loss(natural, adversarial, weights), wanted), finish())


def time_shape(shape: tuple[int, int], rounds: int) -> dict[str, Timing]:
    """Timings of every variant at one shape."""
    B, C = shape
    data = inputs(B, C)
    variants = {
        "ikl": call(ikl, *data, both=True),
        "kl_div": call(kl, *data, both=True),
        "ikl, student only": call(ikl, *data, both=False),
        "kl_div, student only": call(kl, *data, both=False),
        "ikl-kd": call(lambda teacher, student, _: ikl_kd(teacher, student), *data, both=False),
        "kd": call(lambda teacher, student, _: kd(teacher, student), *data, both=False),
    }
    if B * C * C <= MOST_PAIRS:
        variants["pairwise"] = call(pairwise, *data, both=True)
    print(f"   timing {B}×{C}: {'; '.join(variants)}", flush=True)
    return alternate(variants, rounds)


def _over(timings: dict[str, Timing], slow: str, fast: str, what: str = "median") -> float | None:
    return getattr(timings[slow], what) / getattr(timings[fast], what) if slow in timings else None


def _row(shape: str, timings: dict[str, Timing], what: str) -> Row:
    milliseconds = [1e3 * getattr(timings[name], what) if name in timings else None for name in VARIANTS]
    ratios = (
        _over(timings, "pairwise", "ikl", what),
        _over(timings, "ikl", "kl_div", what),
        _over(timings, "ikl, student only", "kl_div, student only", what),
        _over(timings, "ikl-kd", "kd", what),
    )
    return [f"{shape} {what}", *milliseconds, *ratios]


def accuracy(shape: tuple[int, int] = (128, 100)) -> Table:
    """Errors of float32 IKL and of the float32 pairwise form against the pairwise form in float64."""
    rows: list[Row] = []
    m, n, weights = inputs(*shape)
    for name, (offset_m, offset_n, scale, apart) in CASES.items():
        other = n if apart is None else m + apart * torch.randn(shape)
        data = scale * m + offset_m, scale * other + offset_n, weights
        exact = _outcome(pairwise, *(tensor.double() for tensor in data))
        errors = [_errors(_outcome(loss, *data), exact) for loss in (ikl, pairwise)]
        rows.append([name, *errors[0], *errors[1]])
    columns = ["float32 inputs", *(f"{loss} {part}" for loss in ("ikl", "pairwise") for part in PARTS)]
    return Table(f"Error against float64 at {shape[0]}×{shape[1]}, the largest over the largest entry", columns, rows)


def _outcome(loss: Loss, m: Tensor, n: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    m, n = m.clone().requires_grad_(), n.clone().requires_grad_()
    value = loss(m, n, weights)
    return value.detach(), *torch.autograd.grad(value, (m, n))


def _errors(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> list[float]:
    return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]


def memory(shape: tuple[int, int] = (512, 1000)) -> Table:
    """Peak memory of one forward and backward, beyond its inputs."""
    B, C = shape
    data = inputs(B, C)
    print(f"   memory at {B}×{C}", flush=True)
    losses = {"pairwise": pairwise, "ikl": ikl, "kl_div": kl}
    peaks = {name: peak_bytes(call(loss, *data, both=True)) for name, loss in losses.items()}
    rows: list[Row] = [[name, peak / 1e6, peak / (4 * B * C), peak / peaks["ikl"]] for name, peak in peaks.items()]
    return Table(
        f"Peak memory beyond the inputs at {B}×{C}, float32", ["loss", "MB", "in B·C floats", "over ikl"], rows
    )


def distilling(rounds: int, shapes: tuple[tuple[int, int], ...] = ((64, 100), (256, 1000))) -> Table:
    """Time and peak memory of every loss of distillation, with gradients to the student only."""
    rows: list[Row] = [[name] for name in DISTILLING]
    for B, C in shapes:
        data, labels, distances = inputs(B, C), torch.randint(C, (B,)), torch.rand(C, C)
        calls = {
            name: call(_asked(loss, wanted_arguments(loss, labels, None, distances)), *data, both=False)
            for name, loss in DISTILLING.items()
        }
        print(f"   timing distillation {B}×{C}", flush=True)
        timings = alternate(calls, rounds)
        for row, (name, timed) in zip(rows, timings.items(), strict=True):
            row += [1e3 * timed.median, _over(timings, name, "kd"), peak_bytes(calls[name]) / 1e6]
    columns = [f"{B}×{C} {what}" for B, C in shapes for what in ("ms", "over kd", "peak MB")]
    return Table("Losses of distillation, forward and backward, student only, float32", ["loss", *columns], rows)


def _asked(loss: PairLoss, wanted: dict[str, Tensor]) -> Loss:
    """``loss`` with what it asks for, as a function that ignores weights."""
    return lambda teacher, student, _: loss(teacher, student, **wanted)


def run(rounds: int) -> Result:
    """Time all shapes, and measure memory and errors."""
    # First: for a while after the pairwise form the system is busy with its gigabytes.
    fused, bounds = compiled(rounds)
    timings = {f"{B}×{C}": time_shape((B, C), rounds) for B, C in SHAPES}
    peaks = memory()
    rows = [_row(shape, times, what) for shape, times in timings.items() for what in ("median", "minimum")]
    table = Table("Forward and backward, float32, milliseconds", COLUMNS, rows)
    large = timings["512×1000"]
    targets = [
        Target("pairwise / ikl, time at 512×1000", _over(large, "pairwise", "ikl") or 0.0, 5000),
        Target("pairwise / ikl, peak memory at 512×1000", float(peaks.rows[0][3] or 0), 1000),
    ]
    for shape, bound in (("128×10", 1.35), ("128×100", 1.35), ("512×1000", 1.0), ("32×21841", 1.0)):
        ratio = _over(timings[shape], "ikl", "kl_div") or 0.0
        targets.append(Target(f"ikl / kl_div, both gradients, time at {shape}", ratio, bound, at_least=False))
    targets += bounds
    distilled = _over(large, "ikl-kd", "kd") or 0.0
    targets.append(Target("ikl-kd / kd, student only, time at 512×1000", distilled, 2.0, at_least=False))
    notes = [
        "ikl: wmse_weight 20, ce_weight 5, given weight rows; pairwise: the same loss over B×C×C gaps, as the official "
        "code computes it; kl_div: torch's, with log_softmax of both logits. Gradients to both unless student only.",
        "ikl-kd: temperature 4, weights are the teacher's softmax at temperature 100; kd: temperature 4; both "
        "differentiate the student only.",
        "Errors 1e-3 apart: the adversarial gradient there is the difference of two nearly equal softmaxes.",
        f"The pairwise form was not run at 32×21841, where one B×C×C tensor is {4e-9 * 32 * 21841**2:.0f} GB; at "
        f"512×1000 it was timed in {len(large['pairwise'].samples)} rounds.",
    ]
    samples = {f"{shape} {name}": time.samples for shape, times in timings.items() for name, time in times.items()}
    title = "Losses: IKL against the pairwise form and KL"
    tables = [table, fused, distilling(rounds), peaks, accuracy()]
    return Result("losses", title, rounds, tables, targets, notes, samples)
