"""The inputs of the traces: per case, the overrides of ``dkl train`` or ``dkl evaluate``.

Every training case takes 20 steps. ``{teacher}`` is replaced by the folder of the finished run ``TEACHER``, and
``{synthetic}`` by a small ``.npz`` file of generated images.
"""

BASE = (
    "trainer.device=cpu",
    "trainer.precision=float64",
    "trainer.threads=1",
    "trainer.epochs=2",
    "trainer.batch_size=8",
    "data.train_size=80",
    "data.test_size=20",
)
"""Two epochs of ten steps on digits."""

PGD = ("attack.steps=3", "attack.relative_step=0.5")
AWP = ("task.awp.gamma=0.005", "task.awp.start=2")
WHOLE = ("trainer.batch_norm_share=null",)
LARGE = ("data=cifar10", "budget=smoke", "+budget.source.train_size=80", "data.train_size=null", "data.test_size=null")
"""Color images of 32×32 pixels instead of digits: AutoAugment needs colors, cutout removes 16×16 pixels."""
STUDENT = ("model=cifar_resnet8", "task.teacher.name=cifar_resnet14", "task.teacher.run={teacher}")

_ADVERSARIAL: dict[str, tuple[str, ...]] = {
    "adversarial-kl": ("loss=kl", *PGD),
    "adversarial-dkl": ("loss=dkl", *PGD),
    "adversarial-ikl": ("loss=ikl", *PGD),
    "adversarial-ikl-sample": ("loss=ikl", "loss.weighting=sample", *PGD),
    "adversarial-gkl": ("loss=gkl", *PGD),
    "adversarial-gkl-sample": ("loss=gkl", "loss.weighting=sample", *PGD),
    "adversarial-prior": ("loss=ikl", "task.prior_temperature=1", "task.prior_momentum=0.9", *PGD),
    "adversarial-smoothing": ("loss=ikl", "task.label_smoothing=0.1", "task.natural_first=true", *PGD),
    "adversarial-batch_statistics": ("loss=kl", "attack=dm", *PGD),
    "adversarial-as_intended": ("loss=ikl", "attack=official_ikl", "attack.schedule=as_intended"),
    "adversarial-low": ("loss=kl", "attack=official_kl", "attack.schedule=low"),
    "adversarial-l2": ("loss=ikl", "attack=official_l2", "evaluation.norm=l2", "evaluation.eps=0.5"),
    "adversarial-augment": (
        "loss=ikl",
        "data.augment.crop_padding=1",
        "data.augment.flip=true",
        "data.augment.rotation=15",
        "data.augment.cutout=3",
        *PGD,
    ),
    "adversarial-accumulate": ("loss=ikl", "trainer.accumulate=2", *PGD),
    "adversarial-devices": ("loss=ikl", "trainer.devices=2", *AWP, *PGD),
    "adversarial-ema": ("loss=ikl", "averaging=ema", *PGD),
    "official": ("recipe=official", *WHOLE, *AWP),
    "official-cutout": ("recipe=official", *WHOLE, "model=small_cnn", *LARGE, "data.augment.second_view=cutout", *AWP),
    "official-autoaugment": (
        "recipe=official",
        *WHOLE,
        "model=small_cnn",
        *LARGE,
        "attack=official_kl",
        "data.augment.second_view=autoaugment",
        *AWP,
    ),
    "dm": (
        "recipe=dm_1m",
        "model=wrn10_2_swish",
        "loss=kl",
        "loss.weight=5",
        "data.synthetic.files=[{synthetic}]",
        "data.mean=[0.3]",
        "data.std=[0.4]",
        "selection.attack=cw-3",
        "selection.balanced=true",
        *PGD,
    ),
    "trades": ("recipe=trades", *PGD),
    "awp": ("recipe=awp", "task.awp.start=2", *PGD),
    "trades_awp": ("recipe=trades_awp", *WHOLE, *AWP),
    "pgd_at": ("recipe=pgd_at", "selection.attack=pgd-3", *PGD),
    "pgd_at-awp": ("recipe=pgd_at", "model=small_cnn", "task.label_smoothing=0.1", "selection.every=2", *AWP, *PGD),
    "mart": ("recipe=mart", *AWP, *PGD),
    "lbgat": ("recipe=lbgat", "model=small_cnn", *AWP, *PGD),
}

_CLASSIFICATION: dict[str, tuple[str, ...]] = {
    "classification": ("task=classification", "model=cifar_resnet14"),
    "classification-digits": (  # its accuracy leaves images to attack
        "task=classification",
        "data.train_size=640",
        "data.test_size=100",
        "trainer.batch_size=128",
        "trainer.epochs=4",
        "optimizer.lr=0.3",
    ),
    "classification-mixing": (
        "task=classification",
        "task.bce=true",
        "task.mixup=0.2",
        "task.cutmix=1.0",
        "optimizer.name=lamb",
        "optimizer.nesterov=false",
        "optimizer.lr=0.005",
        "optimizer.decay_vectors=false",
    ),
    "classification-cutmix": (
        "task=classification",
        "task.cutmix=1.0",
        "optimizer.name=adamw",
        "optimizer.nesterov=false",
        "optimizer.lr=0.001",
    ),
    "classification-smoothing": ("task=classification", "task.label_smoothing=0.1", "schedule=constant"),
    "classification-step": ("task=classification", "schedule=step", "schedule.milestones=[0.5]"),
    "classification-one_cycle": ("task=classification", "schedule=one_cycle", "optimizer.no_decay=[bias]"),
    "classification-cosine_annealing": (
        "task=classification",
        "schedule=cosine_annealing",
        "schedule.warmup_epochs=1",
        "schedule.warmup_lr=0.001",
    ),
}
_DISTILLATION: dict[str, tuple[str, ...]] = {
    "kd": ("recipe=kd_cifar", "loss=kd", "data.mean=null", "data.std=null"),
    "kd-cached": ("task=distillation", "loss=kd", "task.cache_teacher=true"),
    "kd-mixing": ("task=distillation", "loss=kd", "task.bce=true", "task.mixup=0.2", "task.cutmix=1.0"),
    "dkd": ("task=distillation", "loss=dkd"),
    "dkd-mixing": ("task=distillation", "loss=dkd", "task.mixup=0.2"),
    "dist": ("task=distillation", "loss=dist"),
    "jsd": ("task=distillation", "loss=jsd"),
    "ikl_kd": ("task=distillation", "loss=ikl_kd"),
    "ikl_kd-class": ("task=distillation", "loss=ikl_kd", "loss.weighting=class", "task.prior_momentum=0.9"),
    "gkl_kd": ("task=distillation", "loss=gkl_kd"),
    "gkl_kd-sample": ("task=distillation", "loss=gkl_kd", "loss.weighting=sample", "task.cache_teacher=true"),
    "fitnet": ("task=fitnet",),
    "at": ("task=at",),
    "rkd": ("task=rkd",),
    "reviewkd": ("task=reviewkd",),
    "mtard": ("task=mtard", "task.natural_teacher.name=cifar_resnet14", "task.natural_teacher.run={teacher}", *PGD),
    "saad_c-ikl": (
        "task=saad_c",
        "loss=ikl",
        "loss.wmse_weight=1",
        "loss.ce_weight=1",
        "task.entropy_scale=1",
        *AWP,
        *PGD,
    ),
}

TRAINING = {
    **{name: ("model=wrn10_2", *overrides) for name, overrides in _ADVERSARIAL.items()},
    **_CLASSIFICATION,
    **{name: (*overrides, *STUDENT) for name, overrides in _DISTILLATION.items()},
}
"""Overrides of ``dkl train`` that follow ``BASE``."""

NEEDS_TORCHDISTILL = ("fitnet", "at", "rkd", "reviewkd")

TEACHER = "classification"

EVALUATED = "classification-digits"
"""The training case whose weights are attacked."""

EVALUATIONS = {
    "linf": ("attacks=standard", "eps=0.12", "n=32"),
    "linf-fab": ("attacks=[fab-t]", "eps=0.12", "batch_size=100"),
    "linf-square": ("attacks=[square]", "eps=0.12", "batch_size=100"),
    "linf-steps": ("attacks=[pgd-5,cw-5]", "eps=0.12"),
    "l2": ("attacks=[pgd-5,apgd-ce,apgd-t]", "norm=l2", "eps=0.7"),
}
"""Overrides of ``dkl evaluate``. The defaults are 100 images in batches of ten.

FAB and Square also run alone: after the other attacks of AutoAttack they rarely find anything.
"""
