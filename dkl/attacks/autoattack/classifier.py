"""The network as evaluations call it, and as attacks search on it.

Evaluations get float32 logits, and whatever the network raises as an error of one line. Attacks may search on a faster
copy that rounds differently. Whatever they find is classified by the evaluated network itself, unchanged and in
float32. A faster search may miss an adversarial image or find another one. An image never counts as misclassified
because of the other rounding.
"""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dkl.attacks.contexts import frozen_eval
from dkl.errors import UserError, first_line, shortened
from dkl.runtime.interruption import Interrupted

_SIZES = 3
"""Batch sizes that are compiled: all images of a batch, half and a quarter of them."""


@contextmanager
def blamed(what: str, advice: str = "") -> Iterator[None]:
    """Raise UserError for any exception inside, which the model raises: ``what`` failed, its type and first line."""
    try:
        yield
    except (UserError, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        reason = ": ".join(filter(None, (type(error).__name__, shortened(first_line(error), 200))))
        raise UserError(f"{what}: {reason}{advice}") from error


class Classifier(nn.Module):
    """``network`` with logits in float32, in which attacks search; those of another precision are cast.

    The package's attacks fail on half precision, and on double precision for L2. Images are float32, so of double
    precision nothing is lost but differences of logits that float32 rounds away.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        try:
            logits: Tensor = self.network(x)
            return logits.float()
        except (Exception, SystemExit):
            with blamed(f"the model cannot classify images {list(x.shape)} on {x.device}"):
                raise


@torch.no_grad()
def first_output(model: nn.Module, images: Tensor, name: str = "the model") -> object:
    """What ``model`` returns for the first ``images`` that it gets.

    Raises UserError if it changes them in place, or calls a network in training mode that is not one of its modules and
    has statistics: every call would move them.
    """
    modules, given = set(model.modules()), images.clone()

    def refuse_training(module: nn.Module, inputs: object) -> None:
        if module.training and module not in modules and any(True for _ in module.buffers()):
            network = type(module).__name__
            raise UserError(
                f"{name} calls a network in training mode, {network}: call the eval() of that network first"
            )

    hook = register_module_forward_pre_hook(refuse_training)
    try:
        # Compiled code would keep the hook. To import the compiler takes seconds, and nothing is compiled without it.
        with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
            output = model(given)
    finally:
        hook.remove()
    if not torch.equal(given, images):
        raise UserError(f"{name} changes its images in place: write x = x - mean, not x -= mean")
    return output


def scaled(images: Tensor) -> Tensor:
    """Convert uint8 ``images`` to floats in [0, 1]; return float images unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


class _Function(nn.Module):
    """Any callable as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise UserError(f"model must be a module or a function from images to logits, not {function!r}")
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def as_module(model: Callable[[Tensor], Tensor]) -> nn.Module:
    """``model`` if it is a module, or a function as one."""
    return model if isinstance(model, nn.Module) else _Function(model)


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """The device of the parameters of ``model``, or of ``images`` if it has none."""
    return next((each.device for each in model.parameters()), images.device)


def checked_images(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return contiguous images, and labels as int64 on the CPU. Raises UserError if they are not usable."""
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise UserError(f"{name} must be a tensor, not {type(given).__name__}: torch.as_tensor(…) makes one")
    if images.ndim != 4 or not len(images):
        raise UserError(f"images must be [N, C, H, W] with N at least 1, not {list(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32):
        raise UserError(f"images must be uint8, or float32 in [0, 1], not {images.dtype}: convert them")
    if images.dtype == torch.float32 and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        low, high = float(images.min()), float(images.max())
        raise UserError(
            f"images must be in [0, 1], not [{low:g}, {high:g}]: divide by 255, and normalize inside the model"
        )
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(
            f"labels must be whole numbers [{len(images)}], one per image, not {labels.dtype} {list(labels.shape)}"
        )
    return images.detach().contiguous(), labels.detach().long().cpu()


@torch.no_grad()
def pass_seconds(model: nn.Module, x: Tensor) -> float:
    """The time of a forward pass of ``x[B, C, H, W]``: the second of two."""
    # A network may draw at random: its draws stay those of an evaluation that measures nothing.
    with frozen_eval(model), torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        for _ in range(2):
            started = time.perf_counter()
            model(x).cpu()
            seconds = time.perf_counter() - started
    return seconds


class _ToChannelsLast(torch.autograd.Function):
    """The same images with the channels last in memory; their gradient has them first, as attacks expect."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


class SearchModel(nn.Module):
    """``network`` with its input ``[B, C, H, W]`` and output ``[B, classes]`` converted for it."""

    def __init__(self, network: nn.Module, *, channels_last: bool, padded: int | None, low_precision: bool) -> None:
        super().__init__()
        self.network, self.channels_last = network, channels_last
        self.padded, self.low_precision = padded, low_precision

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        if self.padded and count:
            # Few sizes, because every new one would be compiled again.
            sizes = sorted(-(-self.padded // 2**power) for power in range(_SIZES))
            size = next((size for size in sizes if size >= count), count)
            x = torch.cat([x, x[:1].expand(size - count, *x.shape[1:])])
        if self.channels_last:
            x = _ToChannelsLast.apply(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.low_precision):
            logits: Tensor = self.network(x)
        return logits[:count].float()


def _folded(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BatchNorm after a convolution is part of its weights."""
    from torch.fx.experimental.optimization import fuse  # here, because few need it

    try:
        return fuse(copy.deepcopy(model).eval())
    except Exception as error:  # symbolic tracing raises many kinds
        reason = str(error).partition("\n")[0]
        raise UserError(f"fold_batch_norm=true cannot trace this network ({reason}): leave it out") from None


def search_model(model: nn.Module, search: Mapping[str, bool | str], batch_size: int) -> nn.Module:
    """Return the network that attacks search on, with the settings ``search`` that differ from their defaults.

    Without any it is ``model`` itself. ``fold_batch_norm`` multiplies BatchNorm into the convolution before it,
    ``channels_last`` and ``compile`` are torch's, and ``precision`` ``bf16`` uses autocast. Raises UserError if the
    network cannot be folded.
    """
    if not search:
        return model
    network = _folded(model) if search.get("fold_batch_norm") else copy.deepcopy(model)
    network = network.eval().requires_grad_(False)
    if search.get("channels_last"):
        network = network.to(memory_format=torch.channels_last)
    if search.get("compile"):
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]  # a module again
    return SearchModel(
        network,
        channels_last=bool(search.get("channels_last")),
        padded=batch_size if search.get("compile") else None,
        low_precision=search.get("precision") == "bf16",
    )
