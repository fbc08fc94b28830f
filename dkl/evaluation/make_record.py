"""Makes the record of a finished evaluation, with the software and hardware it ran on, and its summary in one line."""

import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.attacks.autoattack.attack_loop import EvaluationState
from dkl.attacks.autoattack.bounded import SampleResult
from dkl.data import SEVERITIES, shot_groups
from dkl.errors import visible
from dkl.evaluation.job import EvaluationJob
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.segmentation import PixelCounts
from dkl.records import AttackResult, Bound, FewLabels, Flags, Record, Segmented, iou_of
from dkl.runtime.device import arithmetic_of, describe
from dkl.runtime.distributed import world

PACKAGES = ("dkl", "torch", "torchvision", "timm", "numpy", "pyautoattack")

TAIL = 2
"""The least ratio of the largest to the smallest class of a long tail; below it classes are only slightly uneven."""


def make_record(
    job: EvaluationJob,
    state: EvaluationState,
    *,
    device: torch.device,
    warnings: list[str],
    sample: SampleResult | None = None,
    corrupted: EvaluationState | None = None,
) -> Record:
    """Make the record of ``job``, which ended in ``state``, and in ``corrupted`` on corrupted images."""
    fields = measured(job.protocol, state, sample)
    fields["seconds"] += float(sum(np.nansum(progress.seconds) for progress in (corrupted or {}).values()))
    return Record(
        **_common(job, device),
        **fields,
        warnings=[*job.warnings, *warnings],
        shots=accuracy_per_shot(state["clean"].flags, job.test.labels, job.train_counts),
        corruptions={name: flags.mean(1).tolist() for name, flags in by_severity(corrupted or {}).items()} or None,
    )


def make_segmentation_record(job: EvaluationJob, counts: PixelCounts, *, device: torch.device) -> Record:
    """Make the record of ``job``, which ended in ``counts``."""
    assert job.windows is not None
    iou = iou_of({"hits": counts.hits, "true": counts.true, "predicted": counts.predicted})
    names = map(visible, job.subject.data.class_names or map(str, range(len(iou))))
    result = Segmented(
        miou=float(np.nanmean(iou)),
        iou={name: None if math.isnan(value) else value for name, value in zip(names, iou.tolist(), strict=True)},
        prediction=job.windows.text,
    )
    return Record(
        **_common(job, device),
        clean=float(counts.hits.sum() / counts.true.sum()),
        robust=None,
        per_attack={},
        seconds=float(counts.seconds.sum()),
        segmented=result,
        warnings=list(job.warnings),
    )


def _common(job: EvaluationJob, device: torch.device) -> dict[str, Any]:
    """The fields of a record that do not depend on what was measured."""
    subject, run, few_labels = job.subject, job.subject.run, None
    best, fields, per_class = subject.best, described(job.protocol, device), subject.data.labels_per_class
    if run is not None and per_class is not None and job.labeled_sha256 is not None:
        few_labels = FewLabels(per_class=per_class, seed=run.config.seed, sha256=job.labeled_sha256)
    if run and len(run.devices) > 1:
        fields["hardware"] |= {"training_devices": list(run.devices)}
    fields |= {
        "id": job.id,
        "method": subject.method,
        "dataset": subject.data.name,
        "architecture": subject.architecture,
        "budget": subject.budget,
        "seed": subject.seed,
        "n": len(job.test),
        "additional_data": job.additional_data,
        "config_hash": job.subject.config_hash,
        "model": subject.settings,
        "checkpoint": f"{subject.weights.path.parent.name}/{subject.weights.path.name}",
        "checkpoint_sha256": job.weights_sha256,
        "data_sha256": job.test.sha256,
        "training": run.settings if run else {},
        "weights": subject.weights.text,
        "synthetic": run.synthetic if run else None,
        "best": best.accuracy if best else None,
        "best_epoch": best.epoch if best else None,
        "partial": len(job.test) < job.test_images,
        "protocol": job.images,
        "teacher": run.teacher if run else None,
        "few_labels": few_labels,
        "step_seconds": run.step_seconds if run else None,
        "training_seconds": run.training_seconds if run else None,
        "tests": subject.tests,
    }
    return {name: _visible(value) for name, value in fields.items()}


def _visible(value: Any) -> Any:
    """Return ``value`` without control characters, which records refuse: names of files and folders may hold some."""
    if isinstance(value, dict):
        return {_visible(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_visible(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def flags_of(state: EvaluationState, sample: SampleResult | None) -> Flags:
    """Return the flags ``[n]`` of each attack, and which images were ``sampled`` if some were."""
    flags = {name: progress.flags for name, progress in state.items()}
    return flags | ({"sampled": sample.sampled} if sample is not None else {})


def measured(protocol: EvaluationProtocol, state: EvaluationState, sample: SampleResult | None) -> dict[str, Any]:
    """The fields of a record that hold what was measured. Seconds are summed over the batches of all processes."""
    results = {
        name: AttackResult(robust=float(state[name].flags.mean()), seconds=float(np.nansum(state[name].seconds)))
        for name in protocol.attacks
    }
    bound = None
    if sample is not None:
        assert protocol.tolerance is not None
        low, high = sample.bounds
        bound = Bound(low=low, high=high, tolerance=protocol.tolerance)
    return {
        "clean": float(state["clean"].flags.mean()),
        # Attacks are cumulative, so the last one has the lowest accuracy.
        "robust": min((result.robust for result in results.values()), default=None),
        "per_attack": results,
        "seconds": float(sum(np.nansum(state[name].seconds) for name in ("clean", *protocol.attacks))),
        "bound": bound,
        "top5": float(state["top5"].flags.mean()) if "top5" in state else None,
    }


def described(protocol: EvaluationProtocol, device: torch.device) -> dict[str, Any]:
    """The fields of a record about its protocol, time, software and hardware."""
    settings = protocol.fields_of_record
    return {
        **settings,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions() | settings["versions"],
        "hardware": hardware(device),
        "git_commit": git_commit(),
    }


def by_severity(state: EvaluationState) -> Flags:
    """The flags of each corruption, bool ``[5, n]``."""
    return {name: progress.flags.reshape(SEVERITIES, -1) for name, progress in state.items()}


def accuracy_per_shot(correct: NDArray[np.bool_], labels: Tensor, train_counts: Tensor) -> dict[str, float] | None:
    """Return the accuracy on classes with many, medium and few training images (Liu et al. 2019, ImageNet-LT).

    It is the mean over the classes of a group, as in the field's code, from ``correct[N]``, ``labels[N]`` and
    ``train_counts[C]``: more than 100 training images are many, fewer than 20 few. Classes without test images are
    ignored, and groups without classes are left out. None if the training images have no long tail, or if only one
    group has classes.
    """
    if train_counts.max() < TAIL * train_counts.min():
        return None
    classes, truth = len(train_counts), labels.numpy()
    tests = np.bincount(truth, minlength=classes)
    right = np.bincount(truth[correct], minlength=classes)
    # The mean is over classes, so a class without test images has no accuracy to add.
    groups = {name: mask.numpy() & (tests > 0) for name, mask in shot_groups(train_counts).items()}
    accuracies = {name: float((right[mask] / tests[mask]).mean()) for name, mask in groups.items() if mask.any()}
    return accuracies if len(accuracies) > 1 else None


def summary(record: Record) -> str:
    """Return the accuracies of ``record`` in one line."""
    if record.segmented is not None:
        return f"mean IoU {record.segmented.miou:.2%}, pixel accuracy {record.clean:.2%}"
    if record.bound is not None:
        return f"clean {record.clean:.2%}, AutoAttack {record.bound.text} with 95 % confidence"
    values = {"clean": record.clean, "robust": record.robust}
    if record.accuracy_only:
        values = {"clean": record.clean, "top-5": record.top5, **(record.shots or {}), "corrupted": record.corrupted}
    line = ", ".join(f"{name} {value:.2%}" for name, value in values.items() if value is not None)
    if record.accuracy_only and record.best is not None:
        line += f"; best epoch, chosen on the test set: {record.best:.2%} (epoch {record.best_epoch})"
    return line


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the values."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # it is only on the path
            found[name] = str(getattr(import_module(name), "__version__", "unknown"))
    return found


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe ``device``: type, name, CPU cores, torch threads, number of processes if several, TF32 on GPUs."""
    threads = torch.get_num_threads()
    facts = {"device": device.type, "name": describe(device), "cores": os.cpu_count(), "threads": threads}
    if world() > 1:
        facts["processes"] = world()
    return facts | arithmetic_of(device)


def git_commit() -> str | None:
    """Return the commit of the checkout, with ``-dirty`` if its code differs; None outside a checkout.

    That is if tracked files were changed, or if the package has a ``.py`` file that is not tracked. ``results`` is
    ignored: records and tables written since the commit do not change the code.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        added = git("ls-files", "--others", "--", "dkl/*.py")  # an asterisk also matches slashes here
        return git("rev-parse", "HEAD") + ("-dirty" if changed or added else "")
    except (OSError, subprocess.CalledProcessError):
        return None
