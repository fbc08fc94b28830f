"""Who is evaluated and how: settings asked for, completed from the run, the data set and the defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl import checkpoint
from dkl.config import EvaluationConfig, config_hash, hashed, label, load_config
from dkl.errors import UserError
from dkl.evaluation.weights import BestEpoch, Weights, best_epoch, choose_weights
from dkl.threat import NORMS, Norm, parse_attacks, parse_threat


@dataclass(frozen=True)
class Subject:
    """What is evaluated: its configuration (``data`` and ``model`` at least), its weights' file and its names.

    ``rows`` are what its run measured, epoch by epoch.
    """

    cfg: DictConfig
    weights: Weights
    method: str
    budget: str
    seed: int | None
    config_hash: str = ""
    training: dict[str, Any] | None = None
    synthetic: str | None = None
    best: BestEpoch | None = None
    teacher: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Method and seed, fit for a file name."""
        seed = "foreign" if self.seed is None else f"s{self.seed}"
        return f"{self.method.replace('/', '_').replace(' ', '_')}-{seed}"


def _synthetic(trained: DictConfig) -> str | None:
    """The generated images that a run trained on: files, without the way to them, and their share of every batch."""
    files = OmegaConf.select(trained, "data.synthetic.files")
    if not files:
        return None
    names = ", ".join("/".join(Path(file).parts[-2:]).lstrip("/") for file in files)
    return f"{names}, {100 * trained.data.synthetic.fraction:g} % of every batch"


def own_run(cfg: DictConfig) -> Subject:
    """A finished run of ``dkl train``."""
    folder = Path(cfg.run)
    trained = load_config(folder)
    trained.paths = cfg.paths
    path = folder / "checkpoint.pt"
    content = checkpoint.read(path)
    if "epoch" not in content:
        raise UserError(f"{path} is not from dkl train; evaluate it by checkpoint={path} model=… data=…")
    done = content["epoch"]
    if done < trained.trainer.epochs:
        raise UserError(f"{folder} has trained {done} of {trained.trainer.epochs} epochs: finish it, then evaluate")
    asked = cfg.weights or OmegaConf.select(trained, "evaluation.weights")
    weights = choose_weights(folder, content, asked)
    rows = content.get("rows", [])
    return Subject(
        cfg=trained,
        weights=weights,
        method=cfg.label or label(trained),
        budget=trained.budget.name,
        seed=trained.seed,
        config_hash=config_hash(trained),
        training={**hashed(trained), "data_sha256": content["data_sha256"]},
        synthetic=_synthetic(trained),
        best=best_epoch(rows, weights.averaged),
        teacher=content.get("task", {}).get("teacher"),
        rows=rows,
    )


def foreign(cfg: DictConfig) -> Subject:
    """Weights trained elsewhere, for a named model and data set."""
    if not cfg.data or not cfg.model:
        raise UserError(f"checkpoint={cfg.checkpoint} needs the network and the data: add model=… data=…")
    if cfg.weights:
        raise UserError(f"weights={cfg.weights} is for run=FOLDER; of checkpoint={cfg.checkpoint} there is one set")
    path = Path(cfg.checkpoint)
    return Subject(cfg=cfg, weights=Weights(path), method=cfg.label or path.stem, budget="own", seed=None)


@dataclass(frozen=True)
class Protocol:
    """How it is evaluated. Without attacks the threat model is the one that moves nothing: Linf of radius 0."""

    attacks: list[str]
    norm: Norm
    eps: float
    eps_text: str
    n: int | None
    batch_size: int
    seed: int

    @property
    def text(self) -> str:
        """What is measured, for people."""
        return f"{', '.join(self.attacks)}, {self.norm} eps {self.eps_text}," if self.attacks else "accuracy"


def _threat_model(cfg: DictConfig, pick: dict[str, Any], default_norm: str) -> tuple[Norm, str]:
    """Norm and radius among the settings ``pick``. Raises UserError where they do not go with what was asked for."""
    if not pick["attacks"]:
        if asked := [f"{key}={cfg[key]}" for key in ("norm", "eps") if cfg[key] is not None]:
            raise UserError(f"attacks=none looks at images as they are: leave out {' '.join(asked)}, or name attacks")
        return "linf", "0"
    if pick["norm"] in NORMS and pick["norm"] != default_norm and cfg.eps is None:
        raise UserError(f"norm={pick['norm']} needs its own radius: add eps=…, such as eps=0.5 for L2 on CIFAR")
    return pick["norm"], str(pick["eps"])


def protocol_of(cfg: DictConfig, subject: Subject) -> Protocol:
    """The settings of ``cfg``; what it leaves open comes from the run's ``evaluation``, or from the defaults."""
    if subject.cfg is cfg:
        defaults = OmegaConf.merge({"data": cfg.data, "evaluation": OmegaConf.structured(EvaluationConfig)}).evaluation
    else:
        defaults = subject.cfg.evaluation
    keys = ("attacks", "norm", "eps", "n", "batch_size", "seed")
    pick: dict[str, Any] = {key: defaults[key] if cfg[key] is None else cfg[key] for key in keys}
    pick["attacks"] = parse_attacks(pick["attacks"])
    norm, eps_text = _threat_model(cfg, pick, defaults.norm)
    eps = parse_threat(norm, eps_text)
    if pick["batch_size"] < 1 or (pick["n"] is not None and pick["n"] < 1):
        raise UserError("batch_size and n must be at least 1")
    return Protocol(**{**pick, "norm": norm, "eps": eps, "eps_text": eps_text})
