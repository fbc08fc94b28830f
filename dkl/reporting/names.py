"""How tables name teachers, attacks and files."""

import re

from dkl.records import Record
from dkl.threat import AUTOATTACK

_ARCHITECTURES = (
    (r"wrn(\d+)_(\d+)", r"WideResNet-\1-\2"),
    (r"wrn(\d+)_(\d+)_swish", r"WideResNet-\1-\2 (SiLU)"),
    (r"preact_resnet(\d+)", r"PreActResNet-\1"),
    (r"preact_resnet(\d+)_w(\d+)", r"PreActResNet-\1 (width \2)"),
    (r"(?:cifar_)?resnet(\d+(?:x\d+)?)", r"ResNet-\1"),
    (r"cifar_wrn_(\d+)_(\d+)", r"WRN-\1-\2"),
    (r"cifar_vgg(\d+)", r"VGG-\1"),
    (r"(?:cifar_)?mobilenetv(\d)", r"MobileNetV\1"),
    (r"cifar_shufflev(\d)", r"ShuffleNetV\1"),
    (r"resnext(\d+)_(\d+x\d+d)", r"ResNeXt-\1 \2"),
    (r"beit_large_patch(\d+)_(\d+)", r"BEiT-L/\1"),
    (r"small_cnn", r"SmallCNN"),
)


def display_architecture(name: str) -> str:
    """The architecture as papers write it: ``wrn34_10`` is WideResNet-34-10; a name not known here stays itself."""
    for pattern, display in _ARCHITECTURES:
        if match := re.fullmatch(pattern, name):
            return match.expand(display)
    return name


def teacher(record: Record) -> str | None:
    """Return the architecture of the teacher, or None if the run had none."""
    task = record.training.get("task")
    teacher_config = task.get("teacher") if isinstance(task, dict) else None
    name = teacher_config.get("name") if isinstance(teacher_config, dict) else None
    return display_architecture(name) if isinstance(name, str) else None


def attacks_label(record: Record) -> str:
    """Return ``AutoAttack`` for all four attacks of the standard suite; otherwise the attacks, marked as not that."""
    if record.is_autoattack:
        return " + ".join(["AutoAttack", *(attack for attack in record.attacks if attack not in AUTOATTACK)])
    return " + ".join(record.attacks) + " (not AutoAttack)"


def slug(text: str) -> str:
    """Return ``text`` as part of a file name: only letters, digits, ``.``, ``_`` and ``-`` stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")
