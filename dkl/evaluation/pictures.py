"""The data of pictures: of one attacked model, and of one that labels pixels. Files are named like the record of the
same evaluation.

``collect_pictures`` writes ``results/figures/data/<id>.npz``, with the predictions and margins of all test images,
features of some, and a few images:

    labels, natural, adversarial [N]                    each test image's class and the model's predictions
    natural_margin, adversarial_margin [N]              p_y − max_{k≠y} p_k of the softmax, in [-1, 1]
    point_labels [M]                                    classes of the images whose features are points
    natural_points, adversarial_points [M, 2]           joint t-SNE of the inputs of the last linear layer
    image_labels, image_natural, image_adversarial [K]  classes and predictions of a few images
    natural_images, adversarial_images [K, C, H, W]     these images, in [0, 1]
    about                                               JSON: model, training and attack

The adversarial images come from one attack on every test image: ``pgd-20``, or the one given by ``attacks``.

``save_mask_pictures`` writes ``results/figures/masks/<id>.npz``, with a few test images, their masks, and what teacher
and student predict:

    images [K, 3, H, W], uint8         the images, padded to one size
    truth, student, teacher [K, H, W]  classes, int32; the ignore value where a pixel does not count. No teacher: absent
    about                              JSON: model, training, classes and their number
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from dkl.assembly.parts import make
from dkl.attacks import frozen_eval, margin, named_attack
from dkl.attacks.autoattack.classifier import scaled
from dkl.config import EvaluateConfig, typed
from dkl.console import bar, say
from dkl.data import SegmentationSet
from dkl.errors import UserError, needs_extra
from dkl.evaluation.job import EvaluationJob, prepare
from dkl.models.features import forward_with_features
from dkl.runtime.device import pick_device
from dkl.storage.files import write_atomically
from dkl.threat import Norm, parse_steps

CLASSES, POINTS, IMAGES = 20, 50, 5
"""Number of classes whose features are shown (as in Figure 3), points per class, and images, each of another class."""

MASKS = 4
"""Number of images whose masks are shown."""

Arrays = dict[str, Any]


def collect_pictures(cfg: DictConfig) -> Path:
    """Write the picture data of what ``cfg``, a configuration of ``dkl evaluate``, names; return the file's path.

    Returns immediately if the file exists. The same weights, images and settings give the same file on the same
    machine. Raises UserError if ``attacks`` is not one of ``pgd-K`` and ``cw-K``.
    """
    config = typed(cfg, EvaluateConfig)
    config = dataclasses.replace(config, attacks=config.attacks or "pgd-20")
    if config.threads:
        torch.set_num_threads(config.threads)
    job = prepare(config)
    if len(job.protocol.attacks) != 1 or parse_steps(job.protocol.attacks[0]) is None:
        given = ", ".join(job.protocol.attacks) or "none"
        raise UserError(f"attacks={given} cannot be pictured: pictures show one attack pgd-K or cw-K, such as pgd-20")
    path = job.results / "figures" / "data" / f"{job.id}.npz"
    if path.exists():
        say(f"{path}: already collected")
        return path
    subject = job.subject
    about = _about(job) | {
        "architecture": subject.architecture,
        "weights": subject.weights.text,
        "training": subject.run.settings if subject.run else {},
        "checkpoint_sha256": job.weights_sha256,
        "data_sha256": job.test.sha256,
        **job.protocol.settings,
        "n": len(job.test),
    }
    _write(path, about, _compute_arrays(job, pick_device(config.device)))
    say(f"{path}: collected")
    return path


def _about(job: EvaluationJob) -> dict[str, Any]:
    """Describe model and training, under the names of a record's fields."""
    subject = job.subject
    return {
        "id": job.id,
        "method": subject.method,
        "dataset": subject.data.name,
        "budget": subject.budget,
        "seed": subject.seed,
    }


def _write(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    whole: Arrays = {"about": np.array(json.dumps(about, sort_keys=True)), **arrays}
    write_atomically(path, lambda file: np.savez_compressed(file, **whole))


class ChosenImages(NamedTuple):
    """Ascending indices of the test images whose features are points, and of those that are shown."""

    points: Tensor
    images: Tensor


def choose_images(labels: Tensor, seed: int) -> ChosenImages:
    """Choose the first images of randomly drawn classes; the choice depends on ``labels`` and ``seed`` only."""
    classes = labels.unique()
    drawn = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))[:CLASSES]]
    members = [(labels == label).nonzero().squeeze(1) for label in drawn]
    points, images = [indices[:POINTS] for indices in members], [indices[:1] for indices in members[:IMAGES]]
    return ChosenImages(torch.cat(points).sort().values, torch.cat(images).sort().values)


class _Outputs(NamedTuple):
    """Predictions and margins of all images of a batch; features and pixels of the chosen ones. On the CPU."""

    predictions: Tensor
    margins: Tensor
    features: Tensor
    images: Tensor


def _forward(model: nn.Module, x: Tensor, y: Tensor, batch: Tensor, chosen: ChosenImages) -> _Outputs:
    """Forward ``x[B, ...]``: natural or adversarial versions of the test images with indices ``batch[B]``."""
    logits, features = forward_with_features(model, x)
    margins = -margin(logits.softmax(-1), y)
    points, images = torch.isin(batch, chosen.points), torch.isin(batch, chosen.images)
    return _Outputs(logits.argmax(-1).cpu(), margins.cpu(), features.pooled.cpu()[points], x.cpu()[images])


def _forward_all(job: EvaluationJob, device: torch.device, chosen: ChosenImages) -> tuple[_Outputs, _Outputs]:
    """Forward all natural images and all adversarial images."""
    protocol, labels = job.protocol, job.test.labels
    model, images, attack = job.model.to(device), job.test.tensor(), protocol.attacks[0]
    perturb = named_attack(model, attack, norm=cast(Norm, protocol.norm), eps=protocol.eps, seed=protocol.seed)
    natural: list[_Outputs] = []
    adversarial: list[_Outputs] = []
    batches = torch.arange(len(labels)).split(protocol.batch_size)
    with frozen_eval(model), torch.no_grad(), bar(f"pictures, {attack}", len(batches), 0) as progress:
        for batch in batches:
            x, y = scaled(images[batch]).to(device), labels[batch].to(device)
            natural.append(_forward(model, x, y, batch, chosen))
            adversarial.append(_forward(model, perturb(x, y), y, batch, chosen))
            progress.advance()
    joined = [_Outputs(*map(torch.cat, zip(*outputs, strict=True))) for outputs in (natural, adversarial)]
    return joined[0], joined[1]


def _compute_arrays(job: EvaluationJob, device: torch.device) -> Arrays:
    """Compute all arrays except ``about``."""
    labels = job.test.labels
    chosen = choose_images(labels, job.protocol.seed)
    natural, adversarial = _forward_all(job, device, chosen)
    # One t-SNE of both kinds, so that natural and adversarial points share their coordinates.
    both = torch.cat([natural.features, adversarial.features]).numpy()
    natural_points, adversarial_points = np.split(tsne(both), 2)
    return {
        "labels": labels.numpy(),
        "natural": natural.predictions.numpy(),
        "adversarial": adversarial.predictions.numpy(),
        "natural_margin": natural.margins.numpy(),
        "adversarial_margin": adversarial.margins.numpy(),
        "point_labels": labels[chosen.points].numpy(),
        "natural_points": natural_points,
        "adversarial_points": adversarial_points,
        "image_labels": labels[chosen.images].numpy(),
        "natural_images": natural.images.numpy(),
        "adversarial_images": adversarial.images.numpy(),
        "image_natural": natural.predictions[chosen.images].numpy(),
        "image_adversarial": adversarial.predictions[chosen.images].numpy(),
    }


def tsne(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Embed ``features[M, D]`` as points ``[M, 2]`` by scikit-learn's t-SNE, initialized with the principal components.

    Raises UserError if scikit-learn is not installed.
    """
    with needs_extra("figures"):
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # a requirement of scikit-learn

    perplexity = min(30.0, (len(features) - 1) / 3)
    # One thread, because the sums and so the points depend on the number of threads.
    with threadpool_limits(1):
        points: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return points


def save_mask_pictures(job: EvaluationJob, device: torch.device) -> None:
    """Write the pictures of ``job``: of the test images that are spread evenly over the set."""
    test, windows = job.test, job.windows
    assert isinstance(test, SegmentationSet)
    assert windows is not None
    chosen = sorted({round(place) for place in np.linspace(0, len(test) - 1, MASKS)})
    pairs = [test.pair(index) for index in chosen]
    networks = {"student": job.model}
    if teacher := _teacher(job):
        networks["teacher"] = teacher.to(device).float().eval()
    ignore = test.pixels.ignore_index
    arrays: Arrays = {
        "images": _stacked([image for image, _ in pairs], 0).numpy(),
        "truth": _stacked([mask for _, mask in pairs], ignore).numpy(),
    }
    for name, network in networks.items():
        predictions = [windows.predict(network, image.to(device)).cpu().int() for image, _ in pairs]
        arrays[name] = _stacked(predictions, ignore).numpy()
    about = _about(job) | {"num_classes": test.pixels.num_classes, "ignore_index": ignore}
    _write(job.results / "figures" / "masks" / f"{job.id}.npz", about, arrays)


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
