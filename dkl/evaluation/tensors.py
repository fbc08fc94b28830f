"""``autoattack``: attacks any callable on tensors, without a configuration, by the code of ``dkl evaluate``.

What cannot work is refused before any attack.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dkl import records
from dkl.attacks import OwnAttack
from dkl.attacks.autoattack.suite import Attacked, attack
from dkl.attacks.autoattack.task import AttackTask
from dkl.config import EvaluateConfig, EvaluationConfig
from dkl.data import Images
from dkl.evaluation.make_record import described, flags_of, measured
from dkl.evaluation.protocol import EvaluationProtocol, choose_protocol
from dkl.records import Bound, Record
from dkl.records.metrics import Interval, wilson
from dkl.records.storage import TEST_IMAGES
from dkl.runtime.device import pick_device
from dkl.runtime.distributed import rank
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import digest, locked
from dkl.threat import SAMPLED
from dkl.validation import check_fields


@dataclass(frozen=True)
class AutoAttackResult:
    """What ``autoattack`` found.

    ``flags`` maps ``clean`` and each attack to bool ``[N]`` on the CPU: the images that are still classified correctly
    after it and all attacks before it. Bounded AutoAttack names its last two attacks ``sample-fab-t`` and
    ``sample-square``, adds ``sampled``, and has a ``bound``; None for other suites. ``seconds`` are those of each
    attack, and ``warnings`` say what makes the result doubtful.
    """

    flags: dict[str, Tensor]
    attacks: list[str]
    seconds: dict[str, float]
    warnings: list[str]
    bound: Bound | None
    _attacked: Attacked[EvaluationProtocol]
    _about: dict[str, Any]

    @property
    def robust(self) -> Tensor:
        """Bool ``[N]``: the images that are classified correctly, clean and after every attack."""
        return self.flags[self.attacks[-1] if self.attacks else "clean"]

    @property
    def accuracies(self) -> dict[str, float]:
        """The accuracy, in [0, 1], on clean images and after each attack."""
        return {name: float(self.flags[name].double().mean()) for name in ("clean", *self.attacks)}

    @property
    def intervals(self) -> dict[str, Interval]:
        """Wilson's 95 % interval of each accuracy, for other images of the same distribution.

        After attacks on a sample it begins lower, by the distance from the accuracy to the lower end of the ``bound``.
        """
        found = {name: wilson(value, len(self.robust)) for name, value in self.accuracies.items()}
        if self.bound is not None:
            for name in SAMPLED.values():
                low, high = found[name]
                found[name] = (max(0.0, low - max(0.0, self.accuracies[name] - self.bound.low)), high)
        return found

    def __str__(self) -> str:
        """Return the accuracies in one line, in percent."""
        line = ", ".join(f"{name} {100 * value:.2f}" for name, value in self.accuracies.items())
        return line if self.bound is None else f"{line}; AutoAttack {self.bound.text} with 95 % confidence"

    def record(
        self,
        *,
        method: str,
        dataset: str,
        architecture: str,
        partial: bool | None = None,
        additional_data: bool = False,
    ) -> Record:
        """Return a record for ``dkl tables``, with the names that boards show.

        ``partial`` says that the images are a part of the test set; by default they are if a known dataset has more.
        """
        n = len(self.robust)
        names = [dataset, architecture, method]
        about = self._about | {"config_hash": digest(architecture)}
        key = digest([*names, about, str(self._attacked.protocol)])
        return Record(
            id="-".join([*(name.replace("/", "_").replace(" ", "_") for name in names), "foreign", key]),
            method=method,
            dataset=dataset,
            architecture=architecture,
            budget="own",
            seed=None,
            n=n,
            additional_data=additional_data,
            partial=n < TEST_IMAGES.get(dataset, n) if partial is None else partial,
            weights="in memory",
            warnings=self.warnings,
            **about,
            **measured(self._attacked.protocol, self._attacked.state, self._attacked.sample),
        )

    def save(self, results: str | Path, *, method: str, dataset: str, architecture: str, **about: bool) -> Path:
        """Write the ``record`` and its flags to ``results/records``, for ``dkl tables``; return its path."""
        record = self.record(method=method, dataset=dataset, architecture=architecture, **about)
        return records.save(record, flags_of(self._attacked.state, self._attacked.sample), Path(results) / "records")


def autoattack(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | str,
    norm: str = "Linf",
    attacks: str | Sequence[str | Callable[..., Tensor]] = "standard",
    batch_size: int = 200,
    seed: int = 0,
    tolerance: float | None = None,
    package: bool = False,
    device: torch.device | str | int | None = None,
    folder: str | Path | None = None,
    channels_last: bool = False,
    fold_batch_norm: bool = False,
    compile: bool = False,
    precision: str = "float32",
) -> AutoAttackResult:
    """Attack ``model`` on ``images[N, C, H, W]``, uint8 or float in [0, 1], with ``labels[N]``.

    ``model`` maps such a batch in [0, 1] to logits ``[B, classes]``, normalization included, in any memory format. A
    module is put into eval mode and frozen meanwhile; networks that a function uses must be in eval mode. ``eps`` is
    the radius in pixel units, such as ``"8/255"``, and ``norm`` one of Linf, L2 and L1. ``attacks`` is a suite or a
    list of attacks: names, or functions ``attack(model, images, labels, *, norm, eps, seed)`` that return images.
    ``tolerance`` is the widest interval of ``bounded`` in percentage points; ``package=True`` runs the authors' own
    attacks, as in ``dkl evaluate``. The ``device`` is by default that of the module's parameters.

    The progress is saved in a subfolder of ``folder`` if that is given, and the same call continues from it.
    ``channels_last``, ``fold_batch_norm``, ``compile`` and ``precision`` (``"bf16"``) make the search faster, in other
    rounding; ``model`` itself then classifies what was found. Raises UserError if an argument is not usable.

    >>> import torch
    >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)), torch.rand(8, 3, 2, 2)
    >>> result = autoattack(model, images, model(images).argmax(1), eps="8/255", attacks=["apgd-ce", "pgd-20"])
    >>> list(result.flags), tuple(result.robust.shape), result.accuracies["clean"]
    (['clean', 'apgd-ce', 'pgd-20'], (8,), 1.0)
    """
    given = [OwnAttack.of(each) if callable(each) else each for each in attacks]
    own = {each.name: each for each in given if isinstance(each, OwnAttack)}
    asked = EvaluateConfig(
        attacks=attacks if isinstance(attacks, str) else [getattr(each, "name", each) for each in given],
        norm=str(norm).lower(),
        eps=_written(eps),
        batch_size=batch_size,
        seed=seed,
        tolerance=tolerance,  # type: ignore[arg-type]  # None is not given
        package=package,
        channels_last=channels_last,
        fold_batch_norm=fold_batch_norm,
        compile=compile,
        precision=precision,
    )
    check_fields(asked)
    protocol = choose_protocol(asked, EvaluationConfig(eps="0"), own)
    task = AttackTask.of(model, images, labels, protocol, None if device is None else pick_device(device))
    if folder is not None:
        about = [_data_sha256(task.images, task.labels), str(protocol), task.num_classes]
        task = task.saved_in(Path(folder), about + [protocol.code] * bool(protocol.own))
    return _run(task, type(model).__name__)


def _run(task: AttackTask[EvaluationProtocol], checkpoint: str) -> AutoAttackResult:
    """Do ``task``; ``checkpoint`` names the model in records."""
    busy = f"another process is attacking the same network and images in {task.folder}"
    with locked(task.folder.with_suffix(".lock"), busy) if task.folder and rank() == 0 else nullcontext():
        attacked = attack(task)
    flags = {name: torch.from_numpy(array) for name, array in flags_of(attacked.state, attacked.sample).items()}
    found = measured(attacked.protocol, attacked.state, attacked.sample)
    about = described(attacked.protocol, task.device) | {
        "checkpoint": checkpoint,
        # Of a function without weights, the flags.
        "checkpoint_sha256": weights_sha256(task.model.state_dict() or flags),
        "data_sha256": _data_sha256(task.images, task.labels),
    }
    return AutoAttackResult(
        flags=flags,
        attacks=attacked.protocol.attacks,
        seconds={name: result.seconds for name, result in found["per_attack"].items()},
        warnings=attacked.warnings,
        bound=found["bound"],
        _attacked=attacked,
        _about=about,
    )


def _written(eps: float | str) -> str:
    """``eps`` as text: ``8/255`` for gray levels, so that boards show it as people write it.

    Scalars of numpy and torch are numbers too. Anything else is refused later, as a text.
    """
    if isinstance(eps, str | bool):
        return str(eps)
    try:
        value = float(eps)
    except (TypeError, ValueError):
        return str(eps)
    levels = round(255 * value) if math.isfinite(value) else 0
    # In the precision of ``eps``: 8/255 in float32 is 8/255.
    return f"{levels}/255" if 0 < levels < 255 and levels / 255 == eps else f"{eps}"


def _data_sha256(images: Tensor, labels: Tensor) -> str:
    """The hash that ``dkl evaluate`` gives to the same images, or that of their values if they are not gray levels."""
    pixels = images if images.dtype == torch.uint8 else (images * 255).round()
    if images.dtype == torch.uint8 or torch.equal(pixels / 255, images):
        return Images(pixels.to(torch.uint8).cpu(), labels).sha256
    content = hashlib.sha256(str(tuple(images.shape)).encode())
    content.update(np.ascontiguousarray(images.cpu().numpy()).tobytes() + labels.numpy().tobytes())
    return content.hexdigest()
