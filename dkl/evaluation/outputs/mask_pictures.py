"""Pictures of a network that labels pixels: a few test images, their masks, and what teacher and student predict.

``save_mask_pictures`` writes ``results/figures/masks/<id>.npz``, named like the record of the same evaluation:

    images [K, 3, H, W], uint8         the images, padded to one size
    truth, student, teacher [K, H, W]  classes, int32; the ignore value where a pixel does not count. No teacher: absent
    about                              JSON: model, training, classes and their number
"""

import io
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dkl.assembly.parts import make
from dkl.console import say
from dkl.data import SegmentationSet
from dkl.errors import UserError
from dkl.evaluation.job import EvaluationJob
from dkl.storage.files import write_atomically

IMAGES = 4


def save_mask_pictures(job: EvaluationJob, device: torch.device) -> None:
    """Write the pictures of ``job``: of the test images that are spread evenly over the set."""
    test, windows = job.test, job.windows
    assert isinstance(test, SegmentationSet)
    assert windows is not None
    chosen = sorted({round(place) for place in np.linspace(0, len(test) - 1, IMAGES)})
    pairs = [test.pair(index) for index in chosen]
    networks = {"student": job.model}
    if teacher := _teacher(job):
        networks["teacher"] = teacher.to(device).float().eval()
    ignore = test.pixels.ignore_index
    arrays: dict[str, Any] = {
        "images": _stacked([image for image, _ in pairs], 0).numpy(),
        "truth": _stacked([mask for _, mask in pairs], ignore).numpy(),
    }
    for name, network in networks.items():
        found = [windows.predict(network, image.to(device)).cpu().int() for image, _ in pairs]
        arrays[name] = _stacked(found, ignore).numpy()
    subject = job.subject
    about = {
        "id": job.id,
        "method": subject.method,
        "dataset": subject.data.name,
        "budget": subject.budget,
        "seed": subject.seed,
        "num_classes": test.pixels.num_classes,
        "ignore_index": ignore,
    }
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(about, sort_keys=True)), **arrays)
    path = job.results / "figures" / "masks" / f"{job.id}.npz"
    write_atomically(path, lambda file: file.write(content.getvalue()))


def _stacked(images: list[Tensor], fill: int) -> Tensor:
    """Stack images of different sizes, padded at the bottom and the right."""
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    whole = images[0].new_full((len(images), *images[0].shape[:-2], height, width), fill)
    for place, image in zip(whole, images, strict=True):
        place[..., : image.shape[-2], : image.shape[-1]] = image
    return whole


def _teacher(job: EvaluationJob) -> nn.Module | None:
    """The teacher of the run, if it has one and its weights are still there."""
    run = job.subject.run
    settings = run.config.task.get("teacher") if run else None
    if not settings:
        return None
    try:
        return make(settings, "task.teacher", nn.Module)
    except UserError as error:
        say(f"pictures without the teacher: {error}")
        return None
