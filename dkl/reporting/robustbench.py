"""RobustBench's model_info: one JSON file per AutoAttack evaluation, ``<dataset>/<norm>/<model>.json``."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dkl.config import shipped
from dkl.errors import UserError
from dkl.published import Paper, published_papers
from dkl.records import Record
from dkl.reporting.grouping import created_at, group, record_ids, seed_key, slug, weights_kind
from dkl.reporting.statistics import percent
from dkl.storage.files import digest, write_text
from dkl.threat import AUTOATTACK, parse_eps

LONGEST_NAME = 200
"""Characters of a file name; most file systems take 255, and a number may follow."""

RADII = {
    **{("Linf", name): 8 / 255 for name in ("cifar10", "cifar100")},
    **{("L2", name): 0.5 for name in ("cifar10", "cifar100")},
    ("Linf", "imagenet"): 4 / 255,
}
"""RobustBench's radius per norm and dataset, in [0, 1] pixel units."""


def paper(method: str, budget: str = "paper") -> Paper:
    """Return the paper of a method. An unknown method, and one at another budget than ``paper``, is unpublished."""
    papers = published_papers() if budget == "paper" else {}
    known = [papers[word] for word in re.split(r"[^A-Z0-9]+", method.upper()) if word in papers]
    name = method if budget == "paper" else f"{method} (budget {budget})"
    unpublished = Paper(key="Unpublished", link="", name=name, authors="", venue="Unpublished")
    # TRADES-AWP has words of two papers: what is added to TRADES names the method.
    return min(known, key=lambda paper: paper is papers["TRADES"], default=unpublished)


def _unfit(record: Record) -> str | None:
    """Return why ``record`` cannot be an entry of RobustBench, and how to make one; None if it can."""
    if record.budget == "smoke":
        return "budget smoke is no result, so train it at another budget"
    if record.partial:
        return "it evaluates a part of the test set, so evaluate all images"
    if record.robust is None or not record.is_autoattack:
        return "it lacks attacks of AutoAttack, so evaluate it with attacks=standard"
    if len(record.attacks) > len(AUTOATTACK):  # its accuracy is that after all of them
        return "it has attacks beside those of AutoAttack, so evaluate it with attacks=standard"
    return None


def model_info(record: Record) -> dict[str, Any]:
    """Return RobustBench's entry for ``record``.

    Raises UserError if the record has budget ``smoke``, has other attacks than those of standard AutoAttack, or is of
    a part of the test set.
    """
    if why := _unfit(record):
        raise UserError(f"{record.id} is no entry of RobustBench: {why}")
    assert record.robust is not None
    origin = paper(record.method, record.budget)
    made = f"Trained and evaluated with the dkl code: {record.method}, seed {record.seed}"
    if record.seed is None:
        made = f"Evaluated with the dkl code: {record.method}, weights trained elsewhere"
    footnote = f"{made}, weights {record.weights}, budget {record.budget}, {record.n} test images, "
    footnote += f"AutoAttack seed {record.evaluation_seed}."
    return {
        "link": origin.link,
        "name": origin.name,
        "authors": origin.authors,
        "additional_data": record.additional_data,
        "number_forward_passes": 1,
        "dataset": record.dataset,
        "venue": origin.venue,
        "architecture": record.architecture,
        "eps": record.eps_text,
        "clean_acc": percent(record.clean),
        # "reported" is meant for a paper's own number; a reproduction reports what it measured.
        "reported": percent(record.robust),
        "autoattack_acc": percent(record.robust),
        "unreliable": bool(record.warnings),
        "footnote": footnote + (f" Uses synthetic images: {record.synthetic}." if record.synthetic else ""),
    }


def model_id(record: Record) -> str:
    """Return RobustBench's model id, such as ``Cui2023Decoupled_WRN-34-10_IKL-AT_s0``.

    Weights trained elsewhere have the start of the checkpoint's hash in place of the seed.
    """
    which = record.checkpoint_sha256[:8] if record.seed is None else f"s{record.seed}"
    # RobustBench abbreviates WideResNet in ids, but not in the architecture field.
    architecture = record.architecture.replace("WideResNet", "WRN")
    parts = [paper(record.method, record.budget).key, architecture, record.method, which]
    if record.seed is not None and weights_kind(record) != "last":
        parts.append(weights_kind(record))
    # Only what differs from RobustBench's defaults is part of the name.
    if radius := other_radius(record):
        parts.append(radius)
    if record.budget != "paper":
        parts.append(record.budget)
    name = "_".join(slug(part) for part in parts)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 10]}_{digest(name)}"


def other_radius(record: Record) -> str:
    """Return a radius other than the dataset's standard one as text, such as ``eps2_255``; else nothing.

    The standard radius is RobustBench's, or else the Linf radius that the dataset's configuration names.
    """
    standard = RADII.get((record.norm, record.dataset))
    path = shipped("configs") / "data" / f"{slug(record.dataset)}.yaml"
    if standard is None and record.norm == "Linf" and path.is_file():
        eps = OmegaConf.select(OmegaConf.load(path), "eps")
        standard = None if eps is None else parse_eps(eps)
    return "" if standard is not None and abs(standard - record.eps) < 1e-5 else slug(f"eps{record.eps_text}")


def write_model_info(records: Sequence[Record], folder: Path) -> tuple[list[Path], list[str]]:
    """Write the newest evaluation of every row and seed. Returns the files, and messages about records left out.

    Evaluations at another radius than the standard one have a folder of their own, ``<norm>-eps<eps>``, because
    RobustBench makes one table of all files in a folder.
    Records without attacks and records of budget ``smoke`` are skipped without a message. If two models would have the
    same name, that of the later one ends in a hash of its row, so that names never change.
    """
    written: list[Path] = []
    unfit: list[Record] = []
    candidates = (record for record in records if not record.accuracy_only and record.budget != "smoke")
    attacked = sorted(candidates, key=created_at)
    # Oldest first: a model that came earlier keeps its name when a namesake is added.
    for key, again in sorted(group(attacked, seed_key).items(), key=lambda item: created_at(item[1][0])):
        if _unfit(again[-1]):
            unfit.append(again[-1])
            continue
        content = model_info(again[-1])
        threat = "-".join(filter(None, (again[-1].norm, other_radius(again[-1]))))
        path = folder / slug(again[-1].dataset) / threat / f"{model_id(again[-1])}.json"
        if path in written:
            path = path.with_name(f"{path.stem}_{digest(key)}.json")
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        written.append(path)
    left_out = group(unfit, _unfit).items()
    return written, [f"not exported to RobustBench: {record_ids(same)}: {why}" for why, same in left_out]
