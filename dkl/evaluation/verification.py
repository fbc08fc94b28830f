"""``verify``: evaluates a random part of a record's images again, and compares the flags.

The images are drawn one by one and attacked by the record's suite, norm, radius and seed. An attack draws at random for
a whole batch, so a few flags differ although nothing is wrong. Images with other flags are therefore attacked again in
the batches that they had (``_OwnBatches``), and count as differing only if their flags differ there too.
What is bounded is the number of images whose flags neither of the two gives.

Batches are not the sample: AutoAttack cuts 10,000 images into 50 batches, a forger may spoil whole batches, and 39 of
the 50 would have to agree to bound the share of spoiled ones by 2 %. Single images are drawn without replacement, so
the exact bound of the hypergeometric distribution holds, wherever the wrong flags are.

Network, images and protocol are built again from what the user names. Nothing in the record is run: it may name
networks of this project and of timm, and no other code.
"""

import dataclasses
import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl import records
from dkl.assembly import load_data
from dkl.attacks import Perturb, frozen_eval, top1, top5
from dkl.attacks.autoattack.attack_loop import UNCHANGED, AttackLoop, Bools, IsCorrect, cut, load, unplaced
from dkl.attacks.autoattack.suite import attack, attacks_of
from dkl.attacks.autoattack.task import AttackTask
from dkl.config import EvaluateConfig, typed
from dkl.config.compose import choices
from dkl.config.overrides import compose_explained, expand_network
from dkl.console import say
from dkl.data import ImageSet
from dkl.errors import UserError
from dkl.evaluation.job import robustbench_images
from dkl.evaluation.make_record import flags_of, hardware, versions
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.subject import Subject, Weights, foreign_subject, load_network, run_subject
from dkl.models.sources import CREATE, foreign_network, is_graph
from dkl.records import Flags, Record
from dkl.records.verification import MOST, Verification, checksum, save_verification
from dkl.runtime.device import arithmetic, pick_device
from dkl.sampling_bound import fewest_without_hit, most_in_population
from dkl.storage import checkpoint
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import digest, write_text
from dkl.threat import known_attack, parse_attacks

KEYS = (
    *("checkpoint", "run", "model", "network", "arguments", "mean", "std", "trust"),
    *("attacks", "data", "device", "threads", "paths"),
)
"""Keys of ``dkl evaluate`` that a verification takes; the others are those of the record."""


def verify(path: Path, overrides: Sequence[str], *, checked: int = 750, seed: int | None = None) -> Verification:
    """Evaluate ``checked`` random images of the record in ``path`` again; return what was found.

    It is saved in the user's results folder, wherever the record lies. ``overrides`` are those of ``dkl evaluate`` that
    name the network and its data: ``checkpoint=FILE`` or ``run=FOLDER``, and ``model=`` and ``data=`` if the record
    does not tell. Without ``seed`` the images are drawn by a new one, which nobody could know before. Raises UserError
    if the record is not usable, or if the weights, the network or the images are not those of the record.
    """
    record, flags = records.load(path), records.load_flags(path)
    if record.segmented is not None or record.bound is not None:
        kind = "labels pixels" if record.segmented else "is of bounded AutoAttack"
        raise UserError(f"{path} {kind}, which cannot be verified: verify a record of attacks=standard")
    config = _config_of(record, overrides)
    if config.threads:
        torch.set_num_threads(config.threads)
    subject = _subject_of(record, config)
    model, layout = load_network(subject)
    if weights_sha256(model.state_dict()) != record.checkpoint_sha256:
        raise UserError(f"{subject.weights.path} holds other weights than those of {record.id}: give their file")
    test, device = _images_of(record, subject), pick_device(config.device)
    checked = min(checked, record.n)
    _check_enough(record.n, checked)
    # An interrupted verification continues here.
    progress = Path(config.paths.results) / "runs" / "evaluations" / digest([checksum(record), checked, seed])
    if seed is None:
        if not (drawn := progress / "seed.txt").is_file():
            write_text(drawn, str(secrets.randbelow(2**32)))
        seed = int(drawn.read_text())
    chosen = np.sort(np.random.default_rng(seed).permutation(record.n)[:checked])
    named = parse_attacks(config.attacks) if config.attacks is not None else []
    protocol = EvaluationProtocol.of_record(record, named)
    say(layout)
    say(f"{record.id}: {', '.join(record.attacks) or 'accuracy'} on {checked} of {record.n} images, seed={seed}")
    part = test.at(torch.from_numpy(chosen))
    task = AttackTask(
        model=model.to(device),
        images=part.tensor(),
        labels=part.labels,
        num_classes=subject.data.num_classes,
        protocol=protocol,
        device=device,
        folder=progress / "drawn",
    )
    with arithmetic(device, products="ieee", convolutions="tf32"):  # as in dkl evaluate
        found = _compare(task, record, flags, test, chosen, progress / "batches")
    verification = Verification(
        id=record.id,
        record_sha256=checksum(record),
        n=record.n,
        checked=checked,
        **found._asdict(),
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        hardware=hardware(device),
    )
    say(f"written: {save_verification(verification, Path(config.paths.results))}")
    shutil.rmtree(progress, ignore_errors=True)
    return verification


def _check_enough(n: int, checked: int) -> None:
    """Raise UserError if ``checked`` of ``n`` images are too few to verify a record, even without any difference."""
    bound, needed = most_in_population(n, checked, 0) / n, fewest_without_hit(n, math.floor(MOST * n))
    if bound > MOST:
        raise UserError(
            f"n={checked} images are too few to verify: without a difference they bound {100 * bound:.1f} %, but "
            f"{100 * MOST:g} % is asked; use n={needed}"
        )


def _fewest_to_refuse(n: int, checked: int) -> int:
    """The fewest of ``checked`` images that must differ so that a record of ``n`` images does not count as verified."""
    counts = range(1, checked + 1)
    return next((count for count in counts if most_in_population(n, checked, count) / n > MOST), checked + 1)


def _config_of(record: Record, overrides: Sequence[str]) -> EvaluateConfig:
    """Compose what names the network and its data; the dataset is the record's if none is given."""
    given = expand_network(overrides)
    keys = [text.lstrip("+~").partition("=")[0].partition(".")[0] for text in given]
    if other := next((key for key in keys if key not in KEYS), None):
        raise UserError(f"dkl verify takes no {other}=: it is the record's; it takes {', '.join(KEYS)}, n and seed")
    if "run" not in keys and "data" not in keys:
        if record.dataset not in choices("data"):
            raise UserError(f"{record.id} is of {record.dataset!r}, no choice of configs/data: add data=…")
        given = [*given, f"data={record.dataset}"]
    return typed(compose_explained("evaluate", given), EvaluateConfig)


def _subject_of(record: Record, config: EvaluateConfig) -> Subject:
    """What is evaluated again: the run, or the file with the network that is named, or that of the record."""
    if config.run:
        return run_subject(dataclasses.replace(config, weights=_kind(record)))
    if config.checkpoint is None and config.network is None:
        raise UserError("name the weights: checkpoint=FILE, or run=FOLDER for a run")
    held = config.checkpoint is not None and is_graph(Path(config.checkpoint))
    if not (config.model or config.network or held):
        # The record's own, if it is of this project or timm.
        model = dict(record.training.get("model", {}) if record.seed is not None else record.model)
        if model.get("_target_") == CREATE:
            del model["_target_"]  # any other is refused like every key of Hydra
        config = dataclasses.replace(config, model=foreign_network(model, record.id))
    subject = foreign_subject(config)
    if record.seed is not None:
        key, path = "average" if _kind(record) == "average" else "model", subject.weights.path
        content = {} if path.suffix == ".safetensors" or is_graph(path) else checkpoint.read(path)
        # An exported file holds the weights alone.
        has = isinstance(content, Mapping) and key in content
        return dataclasses.replace(subject, weights=Weights(path, key)) if has else subject
    if subject.config_hash != record.config_hash:
        network = record.model.get("name") or record.model.get("_target_")
        raise UserError(
            f"{record.id} is of another network or normalization: {network}, mean {record.model.get('mean')}, std "
            f"{record.model.get('std')}; give the same model=, mean= and std="
        )
    return subject


def _kind(record: Record) -> str:
    """Which weights of a run were evaluated: last, average or best."""
    return record.weights.partition(" ")[0]


def _images_of(record: Record, subject: Subject) -> ImageSet:
    """The images of the record. Raises UserError if the data has others."""
    _, test = load_data(subject.data if subject.run else dataclasses.replace(subject.data, test_size=None))
    sizes = [None, subject.data.test_size, record.n]
    if record.protocol is not None:
        test = robustbench_images(test, subject.data)
        test = test.select(torch.arange(record.n))
    found = next((cut for size in sizes if (cut := test.balanced(size)).sha256 == record.data_sha256), None)
    if found is None:
        raise UserError(f"{subject.data.name} has other test images than {record.id}: give its data=… and paths.data=…")
    return found


class _Compared(NamedTuple):
    """How many images differ, how many of those count as robust in the record, and how many differed at first only."""

    differ: int
    lost: int
    other_draws: int


def _compare(
    task: AttackTask[EvaluationProtocol],
    record: Record,
    flags: Flags,
    test: ImageSet,
    chosen: NDArray[np.int64],
    progress: Path,
) -> _Compared:
    """Attack the images of ``task``, which are ``chosen[M]`` of ``test[N]``, and those with other flags once more."""
    again = flags_of(attack(task).state, None)
    first = _first_differences(record, flags, again, chosen)
    unequal = first <= len(record.attacks)
    if not unequal.any():
        return _Compared(0, 0, 0)
    say(f"images with other flags: {int(unequal.sum())}; they are attacked again in the batches that they had")
    all_images = dataclasses.replace(task, images=test.tensor(), labels=test.labels, folder=progress)
    loop = AttackLoop(all_images, load(progress))
    attacks = attacks_of(all_images, task.protocol) if record.attacks else {}
    own = _OwnBatches(loop, attacks, flags, task.num_classes)
    differ = own.differing(first, enough=_fewest_to_refuse(record.n, len(chosen)))
    last = record.attacks[-1] if record.attacks else "clean"
    lost = flags[last][chosen] & ~again[last] & differ[chosen]
    return _Compared(int(differ.sum()), int(lost.sum()), int((unequal & ~differ).sum()))


def _first_differences(record: Record, flags: Flags, again: Flags, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first stage of each image ``[N]`` at which its flags ``again[M]`` are others: 0 is clean, 1 an attack, …

    Images that are not ``chosen[M]``, or whose flags agree, have a stage beyond the last attack.
    """
    first = np.full(record.n, len(record.attacks) + 1)
    for stage, names in reversed([*enumerate([("clean", "top5"), *((name,) for name in record.attacks)])]):
        for name in names:
            if name in flags and name in again:
                first[chosen[flags[name][chosen] != again[name]]] = stage
    return first


@dataclass(frozen=True)
class _OwnBatches:
    """The ``flags[N]`` that an evaluation of all images of ``loop`` by ``attacks`` found, to be found again.

    An attack draws at random for a whole batch, so an image gets the same draws only in the batch that it had. Before
    each attack the images that were still correct were cut into batches, so the flags tell which they were.
    """

    loop: AttackLoop
    attacks: Mapping[str, Perturb]
    flags: Mapping[str, Bools]
    num_classes: int

    def differing(self, first: NDArray[np.int64], *, enough: int) -> Bools:
        """Return which images ``[N]`` get other flags in their own batches.

        Image i is evaluated again from stage ``first[i]`` on: 0 is clean, 1 the first attack, and so on. Images whose
        stage is beyond the last attack are left alone. Stops if ``enough`` images differ; the images that are not
        decided by then count as differing.
        """
        stages = ("clean", *self.attacks)
        differ, before = np.zeros(len(first), dtype=np.bool_), np.ones(len(first), dtype=np.bool_)
        for stage, name in enumerate(stages):
            for number, batch in enumerate(cut(before, self.loop.batch_size)):
                members = batch.numpy()
                asked = members[(first[members] <= stage) & ~differ[members]]
                if len(asked):
                    differ[asked] = self._differs(name, batch, number)[asked]
                if differ.sum() >= enough:
                    return first < len(stages)
            before = self.flags[name]
        return differ

    @torch.no_grad()
    def _differs(self, name: str, batch: Tensor, number: int) -> Bools:
        """Attack the whole ``batch`` by ``name``; return which of its images have other flags, ``[N]``."""
        rules: dict[str, IsCorrect] = {"clean": top1, "top5": top5} if name == "clean" else {name: top1}
        saved = {key: f"{key} batch {number}" for key in rules if key in self.flags}
        attack = unplaced(self.attacks[name]) if name in self.attacks else UNCHANGED
        passes = known_attack(name).cost(self.num_classes).forward + 1 if name in self.attacks else 1
        criteria, start = {saved[key]: rules[key] for key in saved}, np.ones(len(self.flags["clean"]), dtype=np.bool_)
        with frozen_eval(self.loop.task.classifier):
            self.loop.attack(criteria, attack, start, passes, batches=[batch])
        differ = [self.loop.state[entry].flags != self.flags[key] for key, entry in saved.items()]
        return np.asarray(np.logical_or.reduce(differ))
