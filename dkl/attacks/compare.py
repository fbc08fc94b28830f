"""AutoAttack of dkl against the authors' package on your network: flag by flag, and the time of each.

    python -m dkl.attacks.compare model=package.module:function images=FILE norm=Linf eps=8/255 n=200 batch_size=50

``function()`` returns the network, which maps images in [0, 1] to logits. FILE, of ``torch.save`` or ``numpy.savez``,
has ``images[N, C, H, W]`` and ``labels[N]``. Both sides attack the images that are still correct, attack by attack, and
take turns. Times are of the processor, so that other work on the machine counts little. Beside them is the floor: the
passes of the network that ours makes, at the time of its fullest pass. The extra ``full`` brings the package.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks.autoattack.drop_in import AutoAttack
from dkl.attacks.contexts import frozen_eval
from dkl.attacks.own import distances
from dkl.errors import UserError, choose_from, for_the_terminal, needs_extra
from dkl.importing import import_object
from dkl.threat import EvaluatedNorm

_LENGTHS = {"n_iter": "steps", "n_queries": "queries", "n_target_classes": "targets"}
"""Settings of the package's attacks, and the arguments of ``compare`` that change them."""


@dataclass
class Comparison:
    """Seconds of the processor by attack, ``package``, ``ours`` and its ``floor``; flags compared, and how many differ.

    ``beyond`` is how far an image of ours lies beyond the radius at most; negative if none does.
    """

    package: dict[str, float] = field(default_factory=dict)
    ours: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)
    robust: dict[str, float] = field(default_factory=dict)
    beyond: float = -float("inf")

    @property
    def ratio(self) -> float:
        """How many times ours the time of the package is, over all attacks."""
        return sum(self.package.values()) / sum(self.ours.values())

    def __str__(self) -> str:
        head = ("flags", "differ", "robust", "package s", "ours s", "floor s", "ratio")
        lines = ["attack    " + "".join(f"{title:>10}" for title in head)]
        for name, ours in self.ours.items():
            package, floor = self.package[name], self.floor[name]
            lines.append(
                f"{name:10}{self.compared[name]:10}{self.differing[name]:10}{self.robust[name]:10.2%}"
                f"{package:10.1f}{ours:10.1f}{floor:10.1f}{package / ours:10.2f}"
            )
        total, differ = sum(self.compared.values()), sum(self.differing.values())
        return "\n".join(
            [*lines, f"{differ} of {total} flags differ; the package takes {self.ratio:.2f} times as long"]
        )


def _timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


class Passes:
    """Counts the images that ``network`` classifies inside, with and without their gradients."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.images, self.fullest = network, {False: 0, True: 0}, 1

    def __enter__(self) -> Self:
        def count(network: nn.Module, inputs: object, logits: Tensor) -> None:
            self.images[logits.requires_grad] += len(logits)
            self.fullest = max(self.fullest, len(logits))

        self.hook = self.network.register_forward_hook(count)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def floor(self, x: Tensor) -> float:
        """The seconds of these passes, of images such as ``x[B, ...]``, if each were as full as the fullest."""
        x = x[torch.arange(self.fullest) % len(x)]

        def once(gradient: bool) -> Tensor:
            leaf = x.clone().requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                logits: Tensor = self.network(leaf)
                return torch.autograd.grad(logits.sum(), leaf)[0] if gradient else logits

        with frozen_eval(self.network):
            fastest = {kind: min(_timed(partial(once, kind))[1] for _ in range(4)) for kind in self.images}
        return sum(fastest[kind] * count for kind, count in self.images.items()) / self.fullest


def _package(model: nn.Module, ours: AutoAttack, device: torch.device) -> Any:
    """The package's AutoAttack with the settings of ``ours``."""
    with needs_extra("full"):
        from pyautoattack import AutoAttack as Package
    package = Package(
        model, norm=ours.norm, eps=ours.epsilon, seed=ours.seed, device=device, version="custom", attacks=[]
    )
    for part in ("apgd", "apgd_targeted", "fab", "square"):
        for name, value in vars(getattr(ours, part)).items():
            if hasattr(getattr(package, part), name):
                setattr(getattr(package, part), name, value)
    return package


@torch.no_grad()
def compare(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "Linf",
    eps: float | str = "8/255",
    version: str = "standard",
    batch_size: int = 250,
    seed: int = 0,
    steps: int | None = None,
    queries: int | None = None,
) -> Comparison:
    """Attack ``images[N, C, H, W]`` with ``labels[N]`` by both; ``steps`` and ``queries`` shorten the attacks."""
    ours = AutoAttack(model, norm=norm, eps=eps, version=version, seed=seed, verbose=False)
    classes = model.eval()(images[:1]).shape[1]
    given = {"steps": steps, "queries": queries, "targets": min(ours.fab.n_target_classes, classes - 1)}
    for part in (ours.apgd, ours.apgd_targeted, ours.fab, ours.square):
        for name, argument in _LENGTHS.items():
            if name in vars(part) and given[argument] is not None:
                setattr(part, name, min(getattr(part, name), given[argument]))
    package = _package(model, ours, ours.place(images))
    found, remaining, correct = Comparison(), torch.arange(len(labels)), model(images).argmax(1) == labels
    if not correct.any():
        raise UserError("the network classifies none of the images correctly: check images and labels")
    for turn, name in enumerate(list(ours.attacks_to_run)):
        remaining = remaining[correct]
        if not len(remaining):
            break
        x, y = images[remaining], labels[remaining]
        ours.attacks_to_run = package.attacks_to_run = [name]
        calls = {
            "package": lambda x=x, y=y: package.run_standard_evaluation(x, y, batch_size=batch_size)[0],
            "ours": lambda x=x, y=y: ours.run_standard_evaluation(x, y, bs=batch_size),
        }
        flags, passes = {}, Passes(model)
        for side in sorted(calls, reverse=bool(turn % 2)):
            with passes if side == "ours" else nullcontext():
                adversarial, getattr(found, side)[name] = _timed(calls[side])
            parts = zip(adversarial.split(batch_size), y.split(batch_size), strict=True)
            flags[side] = torch.cat([model(a).argmax(1) == b for a, b in parts])
            if side == "ours":
                farthest = float(distances(adversarial, x, cast(EvaluatedNorm, ours.norm.lower())).max())
                found.beyond = max(found.beyond, farthest - ours.epsilon)
        correct, found.floor[name] = flags["package"], passes.floor(x)
        found.compared[name], found.differing[name] = len(y), int((flags["ours"] != correct).sum())
        found.robust[name] = float(correct.sum()) / len(labels)
    return found


def _load(path: Path, n: int | None) -> tuple[Tensor, Tensor]:
    """The first ``n`` ``images`` and ``labels`` of a file. Raises UserError if it has none."""
    try:
        content = np.load(path) if path.suffix == ".npz" else torch.load(path, weights_only=True)
        images, labels = (torch.as_tensor(content[key]) for key in ("images", "labels"))
    except Exception as error:  # of any class: each format of a damaged file has its own
        reason = type(error).__name__
        raise UserError(
            f"images={path} must be a file of torch.save or numpy.savez with images and labels: {reason}"
        ) from None
    images = images.float() / (255 if images.dtype == torch.uint8 else 1)
    return images[:n], labels[:n].long()


NUMBERS = ("batch_size", "n", "seed", "steps", "queries")


def main(arguments: list[str]) -> int:
    """Compare as ``arguments`` say; return 1 if a flag differs."""
    given = dict(text.partition("=")[::2] for text in arguments)
    known = ("model", "images", "norm", "eps", "version", *NUMBERS)
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"{unknown[0]}=: {choose_from(unknown[0], known)}")
    if not {"model", "images"} <= set(given):
        raise UserError("give model=package.module:function and images=FILE")
    for name in NUMBERS:
        least = 0 if name == "seed" else 1
        if name in given and not (given[name].isdecimal() and int(given[name]) >= least):
            raise UserError(f"{name}={given[name]} must be a whole number, at least {least}")
    numbers = {name: int(given.pop(name)) for name in NUMBERS if name in given}
    x, y = _load(Path(given.pop("images")), numbers.pop("n", None))
    function = given.pop("model")
    if ":" not in function:
        raise UserError(f"model={function} must be package.module:function, a function that returns the network")
    network = import_object(function)()
    if not isinstance(network, nn.Module):
        raise UserError(f"model={function} returns a {type(network).__name__}: it must return a torch.nn.Module")
    network.eval()
    found = compare(network, x, y, **given, **numbers)  # type: ignore[arg-type]  # the others are texts
    print(found)
    return int(any(found.differing.values()))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(for_the_terminal(error), file=sys.stderr)
        sys.exit(2)
