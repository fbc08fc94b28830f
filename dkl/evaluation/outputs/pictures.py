"""What pictures show of one model: predictions and margins of every test image, features of some, and a few images.

``collect`` writes one ``.npz`` beside the results, under the name of the record of the same evaluation:

    labels, natural, adversarial [N]                    the class of each test image, and what the model takes it for
    natural_margin, adversarial_margin [N]              p_y − max_{k≠y} p_k of the softmax, in [-1, 1]
    point_labels [M]                                    classes of those whose features are points: what the last
    natural_points, adversarial_points [M, 2]           linear layer takes, t-SNE of both together
    image_labels, image_natural, image_adversarial [K]  class and predictions of a few images,
    natural_images, adversarial_images [K, C, H, W]     and these images, in [0, 1]
    about                                               JSON: whose they are, and by which attack

The adversarial images are those of one attack, ``pgd-20`` unless another is asked for, on every image.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from dkl.assembly import pick_device
from dkl.attacks import frozen_eval, margin, named_attack
from dkl.config import model_name
from dkl.console import bar, say
from dkl.errors import UserError, needs_extra
from dkl.evaluation.robustness.attack_loop import scaled
from dkl.evaluation.job import EvaluationJob, prepare
from dkl.files import write_atomically
from dkl.models.features import forward_with_features
from dkl.threat import parse_steps

CLASSES, POINTS, IMAGES = 20, 50, 5
"""Classes whose features are shown, as in the paper's Figure 3; points a class; images, each of another class."""

Arrays = dict[str, NDArray[Any]]


def collect(cfg: DictConfig) -> Path:
    """Write what pictures need of what ``cfg``, a configuration of ``dkl evaluate``, names; returns the file's path.

    At once where it is there already. The same weights, images and settings give the same file on the same machine.
    Raises UserError where ``attacks`` is not one of ``pgd-K`` and ``cw-K``.
    """
    cfg = cfg.copy()
    cfg.attacks = cfg.attacks or "pgd-20"
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    job = prepare(cfg)
    if len(job.protocol.attacks) != 1 or parse_steps(job.protocol.attacks[0]) is None:
        given = ", ".join(job.protocol.attacks) or "none"
        raise UserError(f"pictures are of one attack: attacks=pgd-20 or the like, not {given}")
    path = job.results / "figures" / "data" / f"{job.id}.npz"
    if path.exists():
        say(f"{path}: already collected")
        return path
    about = np.array(json.dumps(_about(job), sort_keys=True))
    arrays: dict[str, Any] = {"about": about, **_look(job, cfg.device)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(path, lambda file: file.write(content.getvalue()))
    say(f"{path}: collected")
    return path


def _about(job: EvaluationJob) -> dict[str, Any]:
    """Whose pictures these are, under the names that a record has for it."""
    subject, protocol = job.subject, job.protocol
    return {
        "id": job.id,
        "method": subject.method,
        "dataset": subject.cfg.data.name,
        "architecture": model_name(subject.cfg.model),
        "budget": subject.budget,
        "seed": subject.seed,
        "weights": subject.weights.text,
        "training": subject.training or {},
        "checkpoint_sha256": job.weights_sha256,
        "data_sha256": job.test.sha256,
        **dataclasses.asdict(protocol),
        "n": len(job.test),
    }


class Choice(NamedTuple):
    """Which images are points, and which are shown: indices into the test images, ascending."""

    points: Tensor
    images: Tensor


def choose(labels: Tensor, seed: int) -> Choice:
    """The first images of classes that ``seed`` draws among those that occur, the same for every model."""
    classes = labels.unique()
    drawn = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))[:CLASSES]]
    members = [(labels == label).nonzero().squeeze(1) for label in drawn]
    points, images = [indices[:POINTS] for indices in members], [indices[:1] for indices in members[:IMAGES]]
    return Choice(torch.cat(points).sort().values, torch.cat(images).sort().values)


def _look(job: EvaluationJob, device_name: str) -> Arrays:
    """All arrays but ``about``."""
    device, protocol, labels = pick_device(device_name), job.protocol, job.test.labels
    model, images = job.model.to(device), job.test.tensor()
    attack = protocol.attacks[0]
    perturb = named_attack(model, attack, norm=protocol.norm, eps=protocol.eps, seed=protocol.seed)
    choice = choose(labels, protocol.seed)
    seen: dict[str, list[_Seen]] = {"natural": [], "adversarial": []}
    batches = torch.arange(len(labels)).split(protocol.batch_size)
    with frozen_eval(model), torch.no_grad(), bar(f"pictures, {attack}", len(batches), 0) as progress:
        for batch in batches:
            x, y = scaled(images[batch]).to(device), labels[batch].to(device)
            for kind, found in (("natural", x), ("adversarial", perturb(x, y))):
                seen[kind].append(_see(model, found, y, batch, choice))
            progress.advance()
    natural, adversarial = (_Seen(*map(torch.cat, zip(*seen[kind], strict=True))) for kind in seen)
    both = torch.cat([natural.features, adversarial.features]).numpy()
    natural_points, adversarial_points = np.split(tsne(both), 2)
    return {
        "labels": labels.numpy(),
        "natural": natural.predictions.numpy(),
        "adversarial": adversarial.predictions.numpy(),
        "natural_margin": natural.margins.numpy(),
        "adversarial_margin": adversarial.margins.numpy(),
        "point_labels": labels[choice.points].numpy(),
        "natural_points": natural_points,
        "adversarial_points": adversarial_points,
        "image_labels": labels[choice.images].numpy(),
        "natural_images": natural.images.numpy(),
        "adversarial_images": adversarial.images.numpy(),
        "image_natural": natural.predictions[choice.images].numpy(),
        "image_adversarial": adversarial.predictions[choice.images].numpy(),
    }


class _Seen(NamedTuple):
    """What a model makes of images: predictions and margins of all, features and pixels of those chosen."""

    predictions: Tensor
    margins: Tensor
    features: Tensor
    images: Tensor


def _see(model: nn.Module, x: Tensor, y: Tensor, batch: Tensor, choice: Choice) -> _Seen:
    """What ``model`` makes of ``x[B, ...]``, the test images ``batch[B]`` natural or attacked; on the CPU."""
    logits, features = forward_with_features(model, x)
    margins = -margin(logits.softmax(-1), y)
    points, images = torch.isin(batch, choice.points), torch.isin(batch, choice.images)
    return _Seen(logits.argmax(-1).cpu(), margins.cpu(), features.pooled.cpu()[points], x.cpu()[images])


def tsne(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points ``[M, 2]`` for ``features[M, D]``: scikit-learn's t-SNE, begun at the principal components.

    In one thread: its sums, and so its points, depend on how many there are.
    """
    with needs_extra("figures"):
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # scikit-learn's own requirement

    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):
        points: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return points
