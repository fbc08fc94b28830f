"""Which manifest and row each entry of ``figures.yaml`` belongs to.

``figures.yaml`` was written independently of the manifests. Here each of its entries is assigned to a manifest and a
row, so that the two collections of numbers can be compared.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from dkl.config import compose_run
from dkl.manifests import ManifestRow, Request, load, names, plan

FIGURES: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).parent / "figures.yaml"))
EXTRA = "official-extra"
TABLES = [int(key[1:]) for key in FIGURES if re.fullmatch(r"T\d+", key)]

ROWS = {
    2: "awp-basic lbgat-basic las-at-basic acat-basic ikl-basic acat-autoaug ikl-autoaug dm-50m ikl-50m",
    3: "pgd-basic lbgat-basic awp-basic las-at-basic acat-basic ikl-basic acat-autoaug ikl-autoaug dm-20m ikl-20m",
    7: "alpha-3 alpha-4 alpha-5 alpha-6",
    8: "beta-2 beta-3 beta-4 beta-5",
    9: "tau-1 tau-2 tau-3 tau-4",
    10: "kl ikl",
    11: "kl ikl ikl-autoaug ikl-50m",
    12: "best-basic ikl-basic best-autoaug ikl-autoaug best-50m ikl-50m",
    16: "fixmatch-hard fixmatch-soft fixmatch-ikl mean-teacher-mse mean-teacher-ikl",
    17: "baseline apd-kl apd-ikl",
}
"""The manifest's rows in the paper's order, of tables with one entry per row."""

BESIDE = {
    "readme_v1_only": [
        ("table-08", "beta-3", "README"),
        (EXTRA, "cifar100-ikl-a4-t2", "AutoAttack log"),
        ("table-11", "ikl", "README 2024"),
        (EXTRA, "cifar100-ikl-1m", "README"),
        (EXTRA, "cifar100-dm-1m", "README"),
        (EXTRA, "cifar100-ikl-50m", "AutoAttack log"),
        (EXTRA, "cifar10-ikl-1m", "README"),
        (EXTRA, "cifar10-dm-1m", "README"),
        ("table-18", "resnet18-resnet18-kl", "README"),
        ("table-18", "resnet18-resnet18-ikl", "README"),
    ],
    "readme_v2": [
        (EXTRA, "cifar100-gkl-autoaug", "README v2"),
        (EXTRA, "cifar100-gkl", "README v2"),
        (EXTRA, "cifar100-gkl-1m", "README v2"),
        (EXTRA, "cifar100-gkl-50m", "README v2"),
        (EXTRA, "cifar10-gkl", "README v2"),
        (EXTRA, "cifar10-gkl-1m", "README v2"),
        (EXTRA, "cifar10-gkl-20m", "README v2"),
        ("table-04", "resnet34-resnet18-gkl", "README v2"),
        ("table-04", "resnet50-mobilenetv1-gkl", "README v2"),
        ("table-05", "resnet18-gkl", "README v2"),
        ("table-05", "resnet50-gkl", "README v2"),
    ],
    "third_party": [
        (EXTRA, "cifar10-ikl-elsewhere", "README of Robust Expert Fusion"),
        (EXTRA, "cifar100-ikl-elsewhere", "README of Robust Expert Fusion"),
    ],
}
"""Manifest, row and source of the numbers that no table has, in order."""

LOGS = {
    "cifar10_dkl_a3_b20_T4.log": "cifar10-ikl-a3",
    "cifar10_dkl_a3_b10_T4_20m.log": "cifar10-ikl-20m",
    "cifar100_a3_b20_t4": "cifar100-ikl-a3",
}
"""Rows of official-extra, by the name of the AutoAttack log in an entry."""

LAST_EPOCH = {"FitNet", "RKD", "CRD", "KD"}
"""Methods of Tables 13 and 14 whose numbers come from CRD, which reports the last epoch."""

METHODS = {
    "Rice et al.": "PGD-AT",
    "TRADES (improved)": "TRADES-AWP",
    "KL (TRADES)": "TRADES-AWP",
    "IKL + AutoAug": "IKL-AT",
    "IKL + synthetic": "IKL-AT",
    "baseline": "Baseline",
    "KL (improved TRADES / plain KD)": "TRADES-AWP",
    "DKL+BA": "DKL-BA",
}
"""Names of methods in figures.yaml that differ from those in the manifests."""

SETTINGS = ("architecture", "augmentation", "alpha_over_4", "beta", "tau", "pseudo_label", "consistency")
WEIGHTS = {"alpha_over_4", "alpha", "beta", "tau", "code_alpha", "code_beta", "second_view_weight", "T"}
"""Numbers that are settings, not results."""

loaded = cache(load)


class Figure(NamedTuple):
    """One number and its place. ``source`` is ``paper``, ``std``, or who else published it."""

    manifest: str
    row: str
    source: str
    column: str
    value: float


class Entry(NamedTuple):
    """One row of figures.yaml, and the manifest's row that must have its numbers."""

    manifest: str
    row: str
    source: str
    content: dict[str, Any]


def entries() -> Iterator[Entry]:
    """Yield every row of figures.yaml; a row with one number per pair of networks becomes one entry per pair."""
    for number in TABLES:
        table, manifest = FIGURES[f"T{number}"], f"table-{number:02d}"
        if number in ROWS:
            for name, content in zip(ROWS[number].split(), table["rows"], strict=True):
                yield Entry(manifest, name, "paper", table.get("fixed", {}) | content)
        if number in (13, 14):
            yield from (Entry(manifest, *rest) for rest in pairs(table))
        if number in IMAGENET:
            yield from (Entry(manifest, *rest) for rest in IMAGENET[number](table))
    yield from (entry for row in FIGURES["logit_losses"] for entry in logit_losses(row))
    for key, places in BESIDE.items():
        for place, content in zip(places, FIGURES[key], strict=True):
            yield Entry(*place, on_imagenet(content) if place[0] != EXTRA else content)


def pairs(table: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield row, source and content of Tables 13 and 14: every pair and method, teachers, and students alone."""
    for pair, accuracy in table["teacher_top1"].items():
        teacher, student = pair.split("->")
        yield f"teacher {teacher.lower()}", "paper", {"top1": accuracy, "teacher": teacher}
        alone = {"method": "Student alone", "top1": table["student_alone_top1"][pair], "student": student}
        yield f"{student.lower()}-alone", "paper", alone
        for row in table["rows"]:
            method, column = row["method"], "top1" if row["method"] in LAST_EPOCH else "best"
            name = f"{teacher}-{student}-{method.removesuffix('-KD')}".lower()
            shown = {"teacher": teacher, "student": student, "method": method, "origin": row["origin"]}
            yield name, "paper", {column: row["top1"][pair], **shown}
            if "plus_minus" in row:
                yield name, "std", {column: row["plus_minus"][pair]}


def logit_losses(row: dict[str, Any]) -> Iterator[Entry]:
    """Yield the entries of one loss that the paper does not have, one per pair of Tables 4, 13 and 14."""
    for pair, accuracy in row["top1"].items():
        teacher, student = pair.split("->")
        number = next((number for number in (13, 14) if pair in FIGURES[f"T{number}"]["teacher_top1"]), 4)
        networks = slug(teacher, student) if number == 4 else pair.replace("->", "-").lower()
        name = f"{networks}-{row['method'].removesuffix('-L').replace(' + ', '-').lower()}"
        shown = {"teacher": teacher, "student": student, "method": row["method"]}
        yield Entry(f"table-{number:02d}", name, row["source"], {"best": accuracy, **shown})


Rows = Iterator[tuple[str, str, dict[str, Any]]]
"""Row, source and content of the entries of one manifest."""


def on_imagenet(content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content`` with accuracies in the best epoch's column and networks under the manifests' names."""
    known = {"top1": "best", "all": "best", "student_acc": "best", "sec_per_iter": "step_seconds"}
    named = {known.get(key, key): value for key, value in content.items()}
    return named | {key: "ResNeXt-101" for key in ("teacher", "model") if named.get(key) == "ResNeXt101-32x4d"}


def slug(*networks: str) -> str:
    return "-".join(network.replace("-", "").lower() for network in networks)


def table_1(table: dict[str, Any]) -> Rows:
    """Adversarial training and distillation of a row are two runs."""
    for name, row in zip(("kl", "dkl", "dkl-ba", "ikl"), table["rows"], strict=True):
        shared = {"origin": row["origin"], "method": row["method"]}
        yield name, "paper", {"clean": row["at_clean"], "autoattack": row["at_autoattack"], **shared}
        method = "KD" if name == "kl" else f"{METHODS.get(row['method'], row['method'])}-KD"
        yield f"{name}-kd", "paper", {"best": row["kd_top1"], **shared, "method": method}


def table_4(table: dict[str, Any]) -> Rows:
    """Yield every pair and method, teachers, and students alone."""
    for row in table["rows"]:
        for pair in row["top1"]:
            of_pair = {key: row[key][pair] for key in ("top1", "sec_per_iter") if key in row}
            teacher, student = pair.split(" -> ")
            shown = {"teacher": teacher, "student": student, "method": row["method"], "origin": row["origin"]}
            name = f"{slug(teacher, student)}-{row['method'].removesuffix('-KD').lower()}"
            yield name, "paper", on_imagenet(of_pair) | shown
    for teacher, accuracy in table["teachers_top1"].items():
        yield f"teacher {slug(teacher)}", "paper", {"top1": accuracy, "teacher": teacher}
    for student, accuracy in table["students_alone_top1"].items():
        yield f"{slug(student)}-alone", "paper", {"top1": accuracy, "student": student, "method": "Student alone"}


def table_5(table: dict[str, Any]) -> Rows:
    """The row that the paper calls ResNet-101 is the teacher of the others."""
    for row in table["rows"]:
        method = f"-{row['method'].removesuffix('-KD').lower()}" if row["teacher"] else ""
        name = "teacher resnext101" if row["student"] == "ResNet-101" else f"{slug(row['student'])}{method}"
        content = on_imagenet(row)
        readme = {"all": content.pop("readme_all")} if "readme_all" in content else content.pop("readme")
        yield name, "paper", content
        yield name, "README", on_imagenet(readme)


def table_15(table: dict[str, Any]) -> Rows:
    for row in table["rows"]:
        yield row["method"].removesuffix("-KD").lower(), "paper", on_imagenet(row)


def table_18(table: dict[str, Any]) -> Rows:
    """The paper prints a teacher's accuracy in each row; the manifest has it once, at the teacher."""
    for row in table["rows"]:
        teacher, student, method = row["teacher"], row["student"], row["method"]
        yield f"teacher {slug(teacher)}", "paper", {"best": row["teacher_acc"], "teacher": teacher}
        name, shown = f"{slug(teacher, student)}-{method.lower()}", {"teacher": teacher, "student": student}
        rest = {"method": f"{method}-KD", "origin": row["origin"]}
        yield name, "paper", {"best": row["student_acc"], **shown, **rest}
        if "readme" in row:
            yield name, "README", {"best": row["readme"], **shown}


IMAGENET = {1: table_1, 4: table_4, 5: table_5, 15: table_15, 18: table_18}
"""Assigns entries to rows, for the tables on ImageNet."""


def figures(entry: Entry) -> Iterator[Figure]:
    """Yield the numbers of an entry, each with its place in a manifest."""
    manifest, row, source, content = entry
    for key, value in content.items():
        if key in WEIGHTS or isinstance(value, bool):
            continue
        if key == "readme" and isinstance(value, float):  # the entry has one accuracy
            (column,) = (other for other in content if other != key and isinstance(content[other], float))
            yield Figure(manifest, row, "README", column, value)
        elif isinstance(value, int | float):
            yield Figure(manifest, row, source, {"after_apgd_ce": "apgd_ce"}.get(key, key), value)
        elif key == "printed_gain":
            yield from (Figure(manifest, row, source, f"gain_{column}", gain) for column, gain in value.items())
        elif key in ("aa_log", "single_checkpoint"):
            place = LOGS[value.get("file", value.get("name"))]
            yield from figures(Entry(EXTRA, place, "AutoAttack log", value))
        elif key == "robustbench":
            yield from figures(Entry(manifest, row, f"RobustBench {value['model'].split()[0]}", value))
        elif key.startswith("readme"):
            yield from figures(Entry(manifest, row, key.replace("readme", "README").replace("_", " "), value))


def in_manifests() -> Iterator[Figure]:
    """Yield every number of every manifest, but those of robust distillation, which other papers published."""
    for manifest in map(loaded, (name for name in names() if not name.startswith("robust-distillation"))):
        for row in (*manifest.rows, *manifest.teachers.values()):
            for source, values in ({"paper": row.paper, "std": row.paper_std} | row.published).items():
                yield from (Figure(manifest.name, row.name, source, *item) for item in values.items())


@cache
def row_of(manifest: str, name: str) -> ManifestRow:
    found = loaded(manifest)
    (row,) = [row for row in (*found.rows, *found.teachers.values()) if row.name == name]
    return row


@cache
def composed(manifest: str, name: str) -> DictConfig:
    """Compose the configuration of a row's run at the manifest's own sizes."""
    return compose_run(plan(manifest, Request(seeds=(0,), row=name))[-1].train).cfg
