"""The records of a results folder: reading them, naming them, and grouping them by board, row and seed.

Reference records ship with the project, in ``<results>/reference``, which is a results folder itself. Tables and the
page show them beside the records of the results folder, in rows of their own that are marked, and the card of an export
includes those of its weights. ``dkl reproduce`` never takes them for runs that are done.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from dkl.config import shipped
from dkl.config.identity import TEACHERS
from dkl.records import Record, load_all
from dkl.threat import AUTOATTACK

REFERENCE = "reference"
"""The folder of reference results inside a results folder, and what begins the ids of reference records."""

NAMED = 4
"""Records that a note or message names, at most."""

TOPICS = ("Adversarial training", "Distillation", "Others")
"""What boards are about, in the paper's order."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

ThreatModel = tuple[str, str, float]
"""Dataset, norm and radius in [0, 1] pixel units."""


def load_with_reference(results: Path) -> tuple[list[Record], list[str]]:
    """Read the records of ``results`` and the reference records, whose ids start with ``reference/``.

    Also returns one message per file that is not a usable record.
    """
    records, problems = load_all(results / "records")
    reference, others = load_all(results / REFERENCE / "records")
    # A run repeated on the same kind of processor has the same id: the prefix keeps the two apart.
    marked = (replace(record, id=f"{REFERENCE}/{record.id}") for record in reference)
    return [*records, *marked], [*problems, *others]


def is_reference(record: Record) -> bool:
    """Return whether ``record`` is a reference record."""
    return record.id.startswith(f"{REFERENCE}/")


def record_file(results: Path, record: Record) -> Path:
    """Return the file of a record that ``load_with_reference`` has read; its flags and curves are beside it."""
    folder = results / REFERENCE if is_reference(record) else results
    return folder / "records" / f"{record.id.removeprefix(f'{REFERENCE}/')}.json"


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Group ``items`` by ``key``. Groups and their members keep the order of ``items``."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def unique(records: Iterable[Record]) -> list[Record]:
    """Return each of ``records`` once, in their order."""
    return list({record.id: record for record in records}.values())


def threat_model(record: Record) -> ThreatModel:
    """Return the threat model of an evaluation.

    The radius is a rounded number, not the text: 8/255 can also be written as 0.03137254902.
    """
    return record.dataset, record.norm, round(record.eps, 9)


def board_key(record: Record) -> tuple[Hashable, ...]:
    """Return which board shows a record, apart from its budget: the accuracies of a dataset, or a threat model."""
    return (record.dataset, "accuracy") if record.accuracy_only else threat_model(record)


def weights_kind(record: Record) -> str:
    """Return which weights of a run were evaluated, without the epoch: ``last``, ``average`` or ``best``."""
    return record.weights.partition(" ")[0]


def images_key(record: Record) -> tuple[Hashable, ...]:
    """Return what values share that may be averaged or compared: the test images, and how masks were predicted."""
    return record.n, record.data_sha256, record.segmented.prediction if record.segmented else ""


def row_key(record: Record) -> tuple[Hashable, ...]:
    """Return what all records of one row of a board share: the row's identity, and the way of evaluating.

    The last, averaged and best weights of a run are different rows. So are reference records, and students of
    different teachers.
    """
    attacks = tuple(record.attacks), record.search.get("precision")
    evaluation = weights_kind(record), attacks, *images_key(record)
    teachers = teachers_weights(record)
    if record.teacher:  # its fingerprint: of the teacher's weights, wherever they are
        teachers = {key: text for key, text in teachers.items() if not key.startswith("task.teacher.")}
    return *threat_model(record), record.budget, record.row, tuple(teachers.items()), is_reference(record), *evaluation


def seed_key(record: Record) -> tuple[Hashable, ...]:
    """Return the row and the training seed. Of several records that share them, only the newest counts."""
    return *row_key(record), record.seed


def created_at(record: Record) -> tuple[datetime, str]:
    """Return a key that sorts records from old to new."""
    return record.time, record.id


def newest_per_seed(records: Iterable[Record]) -> list[Record]:
    """Return the newest evaluation of every row and seed, sorted by seed. Weights trained elsewhere come last."""
    newest = [max(same, key=created_at) for same in group(records, seed_key).values()]
    return sorted(newest, key=lambda record: (record.seed is None, record.seed, record.id))


def teacher_title(record: Record) -> str | None:
    """Return the architecture of the run's teacher, or None if it had none."""
    # Records of foreign weights have no configuration.
    task = record.training.get("task")
    teacher = task.get("teacher") if isinstance(task, dict) else None
    name = teacher.get("name") if isinstance(teacher, dict) else None
    return model_title(name) if isinstance(name, str) else None


def teachers_weights(record: Record) -> dict[str, str]:
    """Return the file or run of each teacher's weights by its key, as in ``task.teacher.run``, and the fingerprint."""
    task = record.training.get("task")
    teachers = {key: task.get(key) for key in TEACHERS} if isinstance(task, dict) else {}
    places = {
        f"task.{key}.{place}": teacher.get(place)
        for key, teacher in teachers.items()
        if isinstance(teacher, dict)
        for place in ("checkpoint", "run")
    }
    return {key: str(name) for key, name in (places | {"task.teacher": record.teacher}).items() if name}


@cache
def model_title(name: str) -> str:
    """Return the title in ``configs/model/<name>.yaml``, or the name itself if there is no such file."""
    if not re.fullmatch(r"\w[\w.-]{,99}", name):  # from a record, where it may be anything
        return name
    path = shipped("configs") / "model" / f"{name}.yaml"
    return str(OmegaConf.select(OmegaConf.load(path), "title") or name) if path.is_file() else name


def topic(records: Sequence[Record]) -> str:
    """Return which of ``TOPICS`` the ``records`` of a board or experiment are about."""
    if not all(record.accuracy_only for record in records):
        return TOPICS[0]
    return TOPICS[1] if any(teacher_title(record) and not record.segmented for record in records) else TOPICS[2]


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


def setting_name(key: str) -> str:
    """Return the key as in an override: ``loss`` for ``loss._target_``."""
    return {"recipe_name": "recipe", "budget.name": "budget"}.get(key, key.removesuffix("._target_"))


def value_text(value: Any) -> str:
    """Return a value as in YAML, a class without its module, and a float with its shortest digits."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, str) and value.startswith("dkl."):
        return value.rpartition(".")[2]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
