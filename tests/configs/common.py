"""Every choice of every configuration group, and the overrides that some of them need."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir() and folder.name != "sweep")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]

FEW_LABELS = ["data.labels_per_class=4", "data.unlabeled.ratio=1"]

SEGMENTATION = ["task=segmentation", "model=pspnet_resnet10_w16"]
PIXEL_TEACHER = ["data=scenes", "model=pspnet_resnet10_w16", "task.teacher.name=pspnet_resnet10_w16"]

ROBUST = ("ard", "rslad", "akd2", "iad1", "iad2", "iad", "adaad", "adaiad", "igdm", "saad", "mtard")
"""Beginnings of the methods of robust distillation."""

REQUIRED = {
    ("data", "npz"): ["data.num_classes=7"],
    ("data", "imagefolder"): ["data.num_classes=7"],
    ("data", "imagefiles"): ["data.num_classes=7"],
    ("model", "timm"): ["model.name=resnet18"],
    ("model", "vit_small_patch2_32"): ["data.shape=[3,32,32]"],
    ("loss", "none"): ["task=classification"],
    **{
        ("loss", path.stem): ["task=distillation", "task.teacher.name=small_cnn"]
        for path in (CONFIGS / "loss").glob("*.yaml")
        if "\ndistances: " in path.read_text()
    },
    ("attack", "none"): ["task=classification"],
    ("budget", "paper"): ["recipe=official"],
    ("task", "fixmatch"): FEW_LABELS,
    ("task", "mean_teacher"): FEW_LABELS,
    ("recipe", "fixmatch_usb"): ["data=cifar100", "trainer.initial_weights=null"],
    ("recipe", "fixmatch_classic"): ["data=cifar10"],
    ("task", "distillation"): ["task.teacher.name=small_cnn"],
    **{
        ("task", features): ["data=cifar100", "model=cifar_resnet8", "task.teacher.name=cifar_resnet14"]
        for features in ("at", "fitnet", "reviewkd", "rkd")
    },
    **{
        (group, path.stem): [
            f"task.{key}.name=small_cnn"
            for key in ("teacher", "natural_teacher")
            if key == "teacher" or path.stem in ("akd2", "iad2", "mtard")
        ]
        for group in ("task", "recipe")
        for path in (CONFIGS / group).glob("*.yaml")
        if path.stem.partition("_")[0] in ROBUST
    },
    ("task", "robust_distillation"): [
        "task.teacher.name=small_cnn",
        "+task.terms.one={_target_:dkl.tasks.Term,target:teacher.natural,student:adversarial}",
    ],
    ("recipe", "kd_cifar"): ["data=cifar100", "task.teacher.name=small_cnn"],
    ("recipe", "kd_cifar_mobile"): ["data=cifar100", "task.teacher.name=small_cnn"],
    ("recipe", "kd_teacher"): ["data=cifar100"],
    ("recipe", "kd_imagenet"): ["data=imagenet", "task.teacher.name=small_cnn"],
    ("recipe", "kd_imagenet_review"): ["data=imagenet", "model=resnet18", "task.teacher.name=resnet34"],
    ("recipe", "kd_imagenet_teacher"): ["data=imagenet"],
    ("recipe", "kd_imagenet_lt"): ["data=imagenet_lt", "task.teacher.name=small_cnn"],
    ("recipe", "kd_imagenet_lt_teacher"): ["data=imagenet_lt"],
    ("recipe", "kd_strong"): ["data=imagenet", "task.teacher.name=small_cnn"],
    ("recipe", "robust_speedrun"): ["data=cifar10"],
    ("recipe", "dm_1m"): ["data=cifar10_1m"],
    ("recipe", "dm_20m"): ["data=cifar10_20m"],
    ("recipe", "dm_50m"): ["data=cifar100_50m"],
    ("data", "camvid"): SEGMENTATION,
    ("data", "ade20k"): SEGMENTATION,
    ("data", "scenes"): SEGMENTATION,
    ("data", "masks"): [*SEGMENTATION, "data.num_classes=7"],
    ("task", "segmentation"): ["data=scenes", "model=pspnet_resnet10_w16"],
    ("task", "segmentation_distillation"): PIXEL_TEACHER,
    ("recipe", "apd_baseline"): ["data=scenes", "model=pspnet_resnet10_w16"],
    ("recipe", "apd"): PIXEL_TEACHER,
    **{("model", path.stem): ["task=segmentation", "data=scenes"] for path in (CONFIGS / "model").glob("pspnet*")},
    ("attack", "official_l2"): ["evaluation.norm=l2", "evaluation.eps=128/255"],
}


def names(group: str) -> list[str]:
    return [choice for of, choice in CHOICES if of == group]


def overrides(group: str, choice: str) -> list[str]:
    """The override that makes the choice, and those that it needs."""
    return [f"{group}={choice}", *REQUIRED.get((group, choice), [])]


def reason(path: Path) -> str:
    """The first comment line of a YAML file after directives to Hydra, without its ``#``."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @")]
    assert lines[0].startswith("# "), f"{path} does not open with a comment"
    return lines[0][2:]
