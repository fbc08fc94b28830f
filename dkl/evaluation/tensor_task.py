"""Turns a callable, images and labels into what is attacked, and refuses what cannot work before any attack."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval
from dkl.data import Images
from dkl.errors import UserError
from dkl.evaluation.attacking import AttackTask
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.robustness.attack_loop import scaled
from dkl.evaluation.robustness.classifier import blamed, first_output
from dkl.evaluation.robustness.suites import check_classes, check_shape
from dkl.runtime.device import pick_device
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import check_writable, digest, write_atomically
from dkl.threat import EVALUATED_NORMS, parse_threat

_KNOWN_BY = 8
"""The number of images whose logits identify a function."""


class _Function(nn.Module):
    """Any callable as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise UserError(f"model must be a module or a function from images to logits, not {function!r}")
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def make_task(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    protocol: EvaluationProtocol,
    device: torch.device | str | int | None,
    folder: str | Path | None,
) -> AttackTask:
    """What is attacked and how; the progress is saved in a subfolder of ``folder``.

    Raises UserError if the model, the images, the labels or the device are not usable.
    """
    images, labels = _checked(images, labels)
    if folder is not None:
        check_writable(Path(folder))
    parse_threat(protocol.norm, protocol.eps_text, shape=images.shape[1:], norms=EVALUATED_NORMS)
    check_shape(protocol.attacks, protocol.norm, images.shape[1:])
    module = model if isinstance(model, nn.Module) else _Function(model)
    place = next((p.device for p in module.parameters()), images.device) if device is None else pick_device(device)
    classes = _count_classes(module, images[:1].to(place), labels)
    check_classes(protocol.attacks, classes)
    task = AttackTask(model=module, images=images, labels=labels, num_classes=classes, protocol=protocol, device=place)
    return task if folder is None else dataclasses.replace(task, folder=_own_folder(Path(folder), task))


def _own_folder(folder: Path, task: AttackTask) -> Path:
    """The subfolder of ``folder`` for this evaluation. Raises UserError if another function has used it."""
    state = task.model.state_dict()
    weights = weights_sha256(state) if state else ""
    about = [weights, data_sha256(task.images, task.labels), str(task.protocol), task.num_classes]
    own = folder / digest(about)
    if state:
        return own
    # A function has no weights to be known by. Its logits are the same up to the rounding of another device.
    with torch.no_grad():
        logits = task.classifier(scaled(task.images[:_KNOWN_BY]).to(task.device)).cpu().numpy()
    path = own / "logits.npy"
    if not path.exists():
        write_atomically(path, lambda file: np.save(file, logits))
    elif not np.allclose(known := np.load(path), logits, rtol=0.01, atol=0.01 * np.abs(known).max()):
        raise UserError(f"{own} has the progress of a function with other logits: choose another folder")
    return own


def _checked(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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


def _count_classes(model: nn.Module, image: Tensor, labels: Tensor) -> int:
    """The number of logits. Raises UserError if the output is not logits, or a label has none."""
    what = f"the model cannot classify an image {list(image.shape[1:])} on {image.device}"
    with frozen_eval(model), blamed(what):
        logits = first_output(model, scaled(image))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the model must return logits [B, classes], but for one image it returns {found}")
    classes = logits.shape[1]
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UserError(
            f"labels must be from 0 to {classes - 1}, the model's classes, not {int(labels.min())} to "
            f"{int(labels.max())}"
        )
    return classes


def data_sha256(images: Tensor, labels: Tensor) -> str:
    """The hash that ``dkl evaluate`` gives to the same images, or that of their values if they are not gray levels."""
    pixels = images if images.dtype == torch.uint8 else (images * 255).round()
    if images.dtype == torch.uint8 or torch.equal(pixels / 255, images):
        return Images(pixels.to(torch.uint8).cpu(), labels).sha256
    content = hashlib.sha256(str(tuple(images.shape)).encode())
    content.update(np.ascontiguousarray(images.cpu().numpy()).tobytes() + labels.numpy().tobytes())
    return content.hexdigest()
