"""Training runs of a second or less that together cover every task, data path, average and selection.

``{teacher}``, ``{files}`` and ``{synthetic}`` stand for what ``write_inputs`` has made.
"""

from pathlib import Path

import numpy as np
import torch

from dkl.models import create_model
from tests.data.image_files import write_folder

BASE = ("trainer.threads=1", "trainer.epochs=2", "trainer.batch_size=8", "data.train_size=20", "data.test_size=10")
"""Two epochs of three steps on digits. The last batch has four images."""

COLOR = ("data=cifar10", "budget=smoke", "data.train_size=20", "data.test_size=10", "trainer.batch_size=8")
AWP = ("task.awp.gamma=0.005", "task.awp.start=1")
NORMALIZED = ("model=cifar_resnet8",)
"""The smallest network with BatchNorm."""
SHORT = ("attack.steps=2", "attack.relative_step=0.5")
SELECTION = ("selection.holdout=5", "selection.every=1", "selection.attack=pgd-2")
STUDENT = (*COLOR, "model=cifar_resnet8", "task.teacher.name=cifar_resnet8", "task.teacher.checkpoint={teacher}")
NATURAL_TEACHER = ("task.natural_teacher.name=cifar_resnet8", "task.natural_teacher.checkpoint={teacher}")
PLAIN = ("data.augment.crop_padding=0", "data.augment.flip=false")
FILES = ("data=imagefiles", "data.num_classes=3", "paths.data={files}", "task=classification")
FILES += ("data.shape=[3,32,32]", "data.train_size=12", "data.test_size=6")
SCENES = ("data=scenes", "data.shape=[3,17,17]", "model=pspnet_resnet10_w16", "optimizer.lr=0.01")
UNLABELED = (*COLOR, "data.labels_per_class=1", "data.unlabeled.ratio=2", "trainer.batch_size=4", "task.threshold=0")

CASES: dict[str, tuple[str, ...]] = {
    "IKL, AWP, step average, selection": (
        *("loss=ikl", "attack=official_ikl", "averaging=ema", *NORMALIZED, *AWP, *SELECTION),
    ),
    "GKL in parts, ramped average": ("loss=gkl", "trainer.accumulate=3", "averaging=dm", *NORMALIZED, *SHORT),
    "epoch average": ("task=classification", "averaging=epoch_ema"),
    "DKL, float64, deterministic": (*("loss=dkl", "trainer.precision=float64", "trainer.deterministic=true", *SHORT),),
    "bfloat16": ("loss=ikl", "trainer.precision=bf16", *NORMALIZED, *AWP, *SHORT),
    "KL in L2": ("loss=kl", "attack=official_l2", "evaluation.norm=l2", "evaluation.eps=0.5"),
    "two views by cutout, augmented": (
        *COLOR,
        *("loss=ikl", "data.augment.second_view=cutout", "data.augment.crop_padding=2", "data.augment.flip=true"),
        *("data.augment.rotation=15", "task.per_view_forward=true", *SHORT),
    ),
    "two views by AutoAugment": (
        *(*COLOR, "loss=gkl", "data.augment.second_view=autoaugment", "data.augment.crop_padding=4", *SHORT, *AWP),
    ),
    "synthetic images, statistics of the batch": (
        *(*COLOR, "loss=kl", "attack=dm", "data.synthetic.files=[{synthetic}]", "data.synthetic.fraction=0.5"),
        *("task.natural_first=true", "task.bn_warm_start=true", "task.label_smoothing=0.1", *SHORT),
        *(*NORMALIZED, "averaging=dm", "averaging.buffers=estimate"),
    ),
    "MART": ("task=mart", *AWP, *SHORT),
    "LBGAT": (*COLOR, "task=lbgat", "task.guide.name=cifar_resnet8", *AWP, *SHORT),
    "PGD-AT": ("task=pgd_at", *SHORT, *NORMALIZED),
    "mixing, binary cross-entropy": (
        *(*COLOR, "task=classification", "task.mixup=0.2", "task.cutmix=1.0", "task.bce=true"),
    ),
    "AdamW with layer decay of rates": (
        *("task=classification", "optimizer.name=adamw", "optimizer.nesterov=false", "optimizer.lr=0.005"),
    ),
    "cached teacher": (*STUDENT, "task=distillation", "loss=ikl_kd", "task.cache_teacher=true", *PLAIN),
    "mixed distillation": (*STUDENT, "task=distillation", "loss=dkd", "task.mixup=0.1", "task.cutmix=1.0"),
    "prior of a teacher": (*STUDENT, "task=distillation", "loss=ikl_kd", "loss.weighting=class"),
    "kd": (*STUDENT, "task=distillation", "loss=kd"),
    **{task: (*STUDENT, f"task={task}") for task in ("fitnet", "at", "rkd", "reviewkd")},
    "two teachers (MTARD)": (*STUDENT, "task=mtard", *NATURAL_TEACHER, *SHORT),
    "teacher in the attack, priors of two targets (SAAD-C)": (
        *(*STUDENT, "task=saad_c", "loss=ikl", "loss.wmse_weight=1", "loss.ce_weight=1", *AWP, *SHORT),
    ),
    "FixMatch": (*UNLABELED, "task=fixmatch"),
    "FixMatch with IKL": (*UNLABELED, "task=fixmatch", "loss=ikl_ssl"),
    "Mean-Teacher": (*UNLABELED, "task=mean_teacher"),
    "image files, RandAugment, repeats": (
        *(*FILES, "data.augment.randaugment=rand-m7-mstd0.5", "data.augment.repeats=2", "trainer.workers=1"),
    ),
    "drop path": (*FILES, "model=vit_small_patch2_32", "+model.depth=1", "+model.drop_path_rate=0.5"),
    "masks": (*SCENES, "task=segmentation"),
    "distillation of masks": (
        *(*SCENES, "task=segmentation_distillation", "task.teacher.name=pspnet_resnet10_w16"),
        *("task.teacher.checkpoint={masks}", "task.prototype_weight=10", "task.align_weight=10"),
    ),
}

NEEDS_TORCHDISTILL = ("fitnet", "at", "rkd", "reviewkd")

ONLY_FINITE = {"bfloat16", "drop path"}
"""Autocast of a CPU has other lists of operations, and drop path draws from the global generator of its device."""


def write_inputs(root: Path) -> dict[str, str]:
    """Write teachers, image files and synthetic images to ``root``; return their places by the names in cases."""
    torch.manual_seed(1)
    teacher, masks = root / "teacher.pt", root / "masks.pt"
    torch.save(create_model("cifar_resnet8", 10).state_dict(), teacher)
    torch.save(create_model("pspnet_resnet10_w16", 11).state_dict(), masks)
    for split, count in (("train", 4), ("test", 2)):
        write_folder(root / "files" / split, count)
    draw = np.random.default_rng(0)
    synthetic = root / "synthetic.npz"
    np.savez(synthetic, image=draw.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), label=np.arange(40) % 10)
    return {"teacher": str(teacher), "masks": str(masks), "files": str(root / "files"), "synthetic": str(synthetic)}


def overrides(name: str, inputs: dict[str, str], *more: str) -> list[str]:
    """The settings of case ``name``; of two settings of one key the later one counts."""
    found: dict[str, str] = {}
    for text in (*BASE, *CASES[name], *more):
        key = text.partition("=")[0]
        found.pop(key, None)
        found[key] = text
    filled = list(found.values())
    for place, value in inputs.items():
        filled = [text.replace(f"{{{place}}}", value) for text in filled]
    return filled
