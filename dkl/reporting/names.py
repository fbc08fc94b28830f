"""Names of teachers, attacks, records and files in tables."""

import re
from collections.abc import Sequence
from functools import cache

from omegaconf import OmegaConf

from dkl.config import shipped
from dkl.records import Record
from dkl.threat import AUTOATTACK

NAMED = 4
"""Records that a note or message names, at most."""


def teacher_title(record: Record) -> str | None:
    """Return the architecture of the run's teacher, or None if it had none."""
    # Records of foreign weights have no configuration.
    task = record.training.get("task")
    teacher = task.get("teacher") if isinstance(task, dict) else None
    name = teacher.get("name") if isinstance(teacher, dict) else None
    return model_title(name) if isinstance(name, str) else None


@cache
def model_title(name: str) -> str:
    """Return the title in ``configs/model/<name>.yaml``, or the name itself if there is no such file."""
    if not re.fullmatch(r"\w[\w.-]{,99}", name):  # from a record, where it may be anything
        return name
    path = shipped("configs") / "model" / f"{name}.yaml"
    return str(OmegaConf.select(OmegaConf.load(path), "title") or name) if path.is_file() else name


def attacks_label(record: Record) -> str:
    """Return ``AutoAttack`` for all four attacks of the standard suite; otherwise the attacks, marked as not that.

    Evaluations of a part of the test set say of how many images: only AutoAttack on all of them has its plain name.
    """
    part = f" on {record.n} images" if record.partial else ""
    if record.is_autoattack:
        return " + ".join(["AutoAttack", *(attack for attack in record.attacks if attack not in AUTOATTACK)]) + part
    precision = f" in {record.search['precision']}" if "precision" in record.search else ""
    if record.bound is not None:
        return f"bounded AutoAttack{precision}{part}"
    return " + ".join(record.attacks) + f"{precision}{part} (not AutoAttack)"


def record_ids(records: Sequence[Record]) -> str:
    """Name the first ``NAMED`` records, and count the others."""
    more = f" and {len(records) - NAMED} more" if len(records) > NAMED else ""
    return ", ".join(record.id for record in records[:NAMED]) + more


def slug(text: str) -> str:
    """Return ``text`` as part of a file name: only letters, digits, ``_``, ``-`` and inner ``.`` stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")
