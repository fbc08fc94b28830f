"""The typed root of every configuration, where the YAML choices lie, and the hash that names a run.

What Python reads as ``cfg.x`` is declared here, so that a typo in a key or a value of the wrong type fails when the
configuration is composed. What goes to a constructor is YAML with ``_target_`` and is checked by that constructor.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, Node, OmegaConf

from dkl.errors import UserError
from dkl.files import digest
from dkl.threat import parse_attacks, parse_threat

PACKAGE = Path(__file__).resolve().parent


class Precision(Enum):
    """Arithmetic of training: float32, float64 (for proofs), or float32 weights under bfloat16 autocast."""

    float32 = "float32"
    float64 = "float64"
    bf16 = "bf16"


class Schedule(Enum):
    """Learning rate over epochs; see ``dkl.training.schedules``."""

    cosine = "cosine"
    constant = "constant"


@dataclass
class AugmentConfig:
    """Random crop after zero-padding, and mirroring."""

    crop_padding: int = 0
    flip: bool = False


@dataclass
class DataConfig:
    """A data set: ``shape`` is (C, H, W), ``eps`` its customary Linf radius; sizes of None take every image."""

    name: str = MISSING
    num_classes: int = MISSING
    shape: list[int] = MISSING
    eps: str = MISSING
    train_size: int | None = None
    test_size: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    source: Any = MISSING


@dataclass
class OptimizerConfig:
    """SGD and its schedule; ``warmup_epochs`` rise linearly."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.cosine
    warmup_epochs: int = 0


@dataclass
class TrainerConfig:
    """How long, in what batches, on what and in which arithmetic training runs."""

    epochs: int = 20
    batch_size: int = 128
    device: str = "auto"
    precision: Precision = Precision.float32
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    validate_every: int = 1
    drop_last: bool = False


@dataclass
class EvaluationConfig:
    """What ``dkl evaluate`` does to this run by default; ``n`` images balanced over classes, None for all."""

    attacks: Any = "standard"
    norm: str = "linf"
    eps: str = "${data.eps}"
    n: int | None = None
    batch_size: int = 200
    seed: int = 0


@dataclass
class PathsConfig:
    """Where data are read and results written; not part of a run's hash."""

    data: str = "data"
    results: str = "results"


@dataclass
class BudgetConfig:
    """Which of the three sizes of the paper's experiments this is, or ``own``."""

    name: str = "own"


@dataclass
class TrainConfig:
    """The root of ``dkl train``. ``label`` is the method's name in tables; None derives it from the loss.

    ``recipe_name`` is set by the recipe's file.
    """

    data: DataConfig = MISSING
    model: Any = MISSING
    task: Any = MISSING
    loss: Any = None
    attack: Any = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logger: Any = None
    paths: PathsConfig = field(default_factory=PathsConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    recipe_name: str = MISSING
    seed: int = 0
    label: str | None = None


@dataclass
class EvaluateConfig:
    """The root of ``dkl evaluate``: one of ``run`` (its folder) or ``checkpoint`` (with ``model=`` and ``data=``).

    What is None is taken from the run, or for foreign weights from the data set and ``EvaluationConfig``.
    """

    run: str | None = None
    checkpoint: str | None = None
    data: DataConfig | None = None
    model: Any = None
    label: str | None = None
    additional_data: bool = False
    attacks: Any = None
    norm: str | None = None
    eps: str | None = None
    n: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int | None = None
    paths: PathsConfig = field(default_factory=PathsConfig)


def shipped(folder: str) -> Path:
    """``configs`` or ``experiments``: beside the package in a checkout, inside it in an installed wheel."""
    for base in (PACKAGE.parent, PACKAGE):
        if (base / folder / ("train.yaml" if folder == "configs" else "quickstart.yaml")).is_file():
            return base / folder
    raise UserError(f"the {folder} folder is missing from this installation of dkl: install it again")


def register() -> None:
    """Make the typed roots known to Hydra's defaults lists."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)


def compose_config(root: str, overrides: list[str]) -> DictConfig:
    """The configuration ``root`` (``train`` or ``evaluate``) with Hydra overrides, without starting a Hydra job."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("configs")), version_base="1.3"):
        return compose(root, overrides)


def loss_name(cfg: DictConfig) -> str:
    """Class name of the loss, such as IKL; ``CE`` where the task has none."""
    return str(cfg.loss._target_).rpartition(".")[2] if cfg.loss else "CE"


def label(cfg: DictConfig) -> str:
    """The method's name in tables: ``cfg.label``, or the loss and how it is used."""
    adversarial = cfg.attack and "Adversarial" in cfg.task._target_
    return cfg.label or (f"{loss_name(cfg)}-AT" if adversarial else loss_name(cfg))


def hashed(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration less what does not change the trained weights: paths, logger, device, names."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.paths.data = cfg.paths.results = ""
    content = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(content, dict)
    for key in ("paths", "logger", "evaluation", "label"):
        content.pop(key)
    for key in ("device", "threads", "validate_every"):
        content["trainer"].pop(key)
    content["data"]["source"].pop("download", None)
    return {str(key): _plain(value) for key, value in content.items()}


def _plain(value: Any) -> Any:
    """``value`` with whole floats as integers, so that 20 and 20.0 name the same run."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def config_hash(cfg: DictConfig) -> str:
    """Eight hex digits that name the run."""
    return digest(hashed(cfg))


def row_hash(cfg: DictConfig) -> str:
    """As ``config_hash``, the seed left out: runs that share it are seeds of one row of a table."""
    content = hashed(cfg)
    del content["seed"]
    content["task"].pop("seed", None)  # follows the run's
    return digest(content)


def run_folder(cfg: DictConfig) -> Path:
    """``<results>/runs/<data>-<model>-<loss>-s<seed>-<hash8>``."""
    name = f"{cfg.data.name}-{cfg.model.name}-{loss_name(cfg).lower()}-s{cfg.seed}-{config_hash(cfg)}"
    return Path(cfg.paths.results) / "runs" / name


def _at_least(cfg: DictConfig, least: float, *keys: str) -> None:
    for key in keys:
        value = OmegaConf.select(cfg, key)
        if value is not None and not least <= value < math.inf:
            raise UserError(f"{key}={value} must be a number of at least {least}")


def _missing(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Keys that still have no value (``???``), without resolving interpolations to them."""
    found: list[str] = []
    for key in map(str, cfg):
        child = cfg._get_node(key)
        if isinstance(child, Node) and child._is_missing():
            found.append(f"{prefix}{key}")
        elif isinstance(child, DictConfig) and not child._is_none():
            found += _missing(child, f"{prefix}{key}.")
    return found


def _leaves(path: Path) -> dict[str, Any]:
    """Dotted key -> value of a YAML file, its defaults list aside."""

    def walk(content: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
        for key in map(str, content):
            if isinstance(content[key], DictConfig):
                yield from walk(content[key], f"{prefix}{key}.")
            elif key != "defaults":
                yield f"{prefix}{key}", content[key]

    content = OmegaConf.load(path)
    assert isinstance(content, DictConfig)
    return dict(walk(content, ""))


def _check_budget(cfg: DictConfig) -> None:
    """A budget's name is kept only with the budget's sizes, and ``paper`` only with a recipe of the paper unchanged."""
    name = cfg.budget.name
    if name in ("own", "smoke"):  # the one promises no sizes, the other's figures are never shown
        return
    fixed = _leaves(shipped("configs") / "budget" / f"{name}.yaml")
    if name == "paper":
        if cfg.recipe_name == "quick":
            raise UserError("budget=paper needs a recipe of the paper: add recipe=official, or use budget=own")
        fixed |= _leaves(shipped("configs") / "recipe" / f"{cfg.recipe_name}.yaml")
    for key, value in fixed.items():
        now = OmegaConf.select(cfg, key)
        if (now.value if isinstance(now, Enum) else now) != value:
            raise UserError(f"budget={name} fixes {key}={value}, here it is {now}; use budget=own for your own sizes")


def check(cfg: DictConfig) -> None:
    """Numbers of a training configuration that no run could use. Raises UserError that names key and mend."""
    known = [item.name for item in fields(TrainConfig)]
    if unknown := sorted({str(key) for key in cfg} - set(known)):
        raise UserError(f"there is no key {unknown[0]!r} at the root; there are {', '.join(known)}")
    if missing := _missing(cfg):
        raise UserError(f"these have no value yet: {', '.join(missing)}; set them, such as {missing[0]}=…")
    _at_least(cfg, 1, "trainer.epochs", "trainer.batch_size", "evaluation.batch_size", "evaluation.n")
    parse_attacks(cfg.evaluation.attacks)
    parse_threat(cfg.evaluation.norm, cfg.evaluation.eps, "evaluation.")
    _at_least(cfg, 1, "data.num_classes", "data.train_size", "data.test_size", "trainer.threads")
    _at_least(cfg, 0, "seed", "evaluation.seed", "optimizer.lr", "optimizer.momentum", "optimizer.weight_decay")
    _at_least(cfg, 0, "data.augment.crop_padding", "optimizer.warmup_epochs", "trainer.validate_every")
    _check_budget(cfg)
    if len(cfg.data.shape) != 3:
        raise UserError(f"data.shape={list(cfg.data.shape)} must be (channels, height, width)")
    if cfg.model.num_classes != cfg.data.num_classes:
        raise UserError(
            f"model.num_classes={cfg.model.num_classes}, but {cfg.data.name} has {cfg.data.num_classes} classes; "
            "leave model.num_classes alone, it follows the data"
        )
